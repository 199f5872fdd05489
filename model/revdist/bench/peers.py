"""Starts the peers that our engines are measured against: the paper's loop, OpenVINO and anomalib, on the same picture.

Each peer runs in a process of its own that waits for a count on stdin. Memory and threads are apart, and a crash loses
one peer, not the run. The paper's loop has its own process too: in a process whose allocator is used to our larger
batches it takes a quarter less time (0.23 s a picture instead of 0.31 s was seen) than where a user runs it.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from revdist.bench import defaults, official_loop, peer_process
from revdist.bench.official_loop import OfficialLoop
from revdist.bench.subject import Subject
from revdist.data.images import Pixels
from revdist.errors import RevdistError
from revdist.exchange import export
from revdist.networks import resnet

RD4AD, OPENVINO, ANOMALIB = NAMES = (defaults.PEER, "openvino", "anomalib")
_KINDS = {
    RD4AD: (RD4AD,),
    OPENVINO: ("openvino-float32", "openvino-bfloat16"),
    ANOMALIB: ("anomalib-torch", "anomalib-openvino-float32", "anomalib-openvino-bfloat16"),
}
_INSTALL = {RD4AD: "", OPENVINO: "pip install openvino onnx", ANOMALIB: "pip install 'anomalib[openvino]'"}
_TIMEOUT_S = 600.0  # for an answer: the first answers include loading and compiling a model
_END_S = 10.0  # for a process to end after its stdin is closed


class PeerError(RevdistError):
    """A peer cannot run here; the others can."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A peer that the user asks for."""

    name: str
    checkout: Path | None = None  # of the paper's code


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """An engine or a peer that takes part in the rounds."""

    name: str
    call: Callable[[int], float]  # pictures of a call -> seconds from camera pictures to scores
    network: Callable[[int], float] | None = None  # pictures of a call -> seconds of teacher and student alone
    most: int = 0  # pictures that one call takes at most; 0 for any number
    precision: str = ""  # of an engine; empty for a peer


@dataclass(frozen=True, slots=True, kw_only=True)
class Peers:
    """The peers that can run here, in the order in which they were asked for."""

    contestants: list[Contestant] = field(default_factory=list)
    loops: list[OfficialLoop] = field(default_factory=list)  # at most one, in this process: for its maps only
    missing: list[PeerError] = field(default_factory=list)
    processes: list[int] = field(default_factory=list)


def parse(text: str) -> list[Wanted]:
    """Parse a list of peers such as `rd4ad=CHECKOUT,openvino`. Raises RevdistError for an unknown peer."""
    wanted_peers = []
    for entry in filter(None, text.split(",")):
        name, _, checkout = entry.partition("=")
        if name not in NAMES or (checkout and name != RD4AD):
            choices = ", ".join((f"{RD4AD}[=CHECKOUT]", *NAMES[1:]))
            raise RevdistError(f"there is no peer {entry!r}", hint=f"name some of {choices}")
        wanted_peers.append(Wanted(name=name, checkout=Path(checkout) if checkout else None))
    return wanted_peers


def start(wanted: Sequence[Wanted], subject: Subject, picture: Pixels, device: torch.device, stack: ExitStack) -> Peers:
    """Start the peers; their processes end with the stack. `missing` tells which cannot run. Raises RevdistError."""
    peers = Peers()
    for peer in wanted:
        try:
            _check(peer.name, subject)
            if peer.name == RD4AD:
                peers.loops.append(_loop(peer.checkout, subject, device))
            folder = _furnish(peer, subject, picture, device, stack)
        except PeerError as error:
            peers.missing.append(error)
            continue
        for kind in _KINDS[peer.name]:
            try:
                process = stack.enter_context(PeerProcess(kind, folder))
            except PeerError as error:
                peers.missing.append(error)
            else:
                most = 1 if kind == RD4AD else 0
                peers.contestants.append(Contestant(name=kind, call=process.call, most=most))
                peers.processes.append(process.number)
    return peers


def _loop(checkout: Path | None, subject: Subject, device: torch.device) -> OfficialLoop:
    if checkout is None:
        return official_loop.written_anew(subject.teacher, subject.student, subject.size, device)
    return official_loop.of_checkout(checkout, subject.teacher, subject.student, subject.size, device)


def _check(name: str, subject: Subject) -> None:
    """Raise PeerError, before anything is started, if something that the peer needs is missing."""
    needed = {RD4AD: (), OPENVINO: ("openvino", "onnx"), ANOMALIB: ("anomalib",)}[name]
    absent = [package for package in needed if importlib.util.find_spec(package) is None]
    if absent:
        raise PeerError(f"{name} takes no part: {' and '.join(absent)} not installed", hint=_INSTALL[name])
    if name in (RD4AD, ANOMALIB) and subject.recipe.tiles.count > 1:
        raise PeerError(f"{name} takes no part: it sees a picture as a whole, not in tiles", hint="use openvino")
    if name == ANOMALIB and subject.teacher.name not in resnet.NAMES:
        raise PeerError(f"{name} takes no part: it has no teacher {subject.teacher.name}", hint="use a ResNet")


def _furnish(wanted: Wanted, subject: Subject, picture: Pixels, device: torch.device, stack: ExitStack) -> Path:
    """Write the folder that the processes of a peer read, and return its path."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="revdist-bench-")))
    setup = {
        "teacher": subject.teacher.name,
        "design": subject.recipe.student,
        "bottleneck": subject.recipe.bottleneck,
        "size": list(subject.size),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "checkout": None if wanted.checkout is None else str(wanted.checkout.absolute()),
    }
    (folder / peer_process.SETUP).write_text(json.dumps(setup))
    np.save(folder / peer_process.PICTURE, picture)
    if wanted.name == RD4AD:
        for name, module in (("teacher", subject.teacher.trunk), ("student", subject.student)):
            state = {key: value.contiguous() for key, value in module.state_dict().items()}
            safetensors.torch.save_file(state, folder / f"{name}.safetensors")
    if wanted.name == OPENVINO:
        parts = export.NetworkParts(
            name=subject.name,
            teacher=subject.teacher,
            student=subject.student,
            tiles=subject.recipe.tiles,
            scoring=subject.scoring,
        )
        (folder / peer_process.MODEL).write_bytes(export.assemble(parts, {}))
    return folder


class PeerProcess:
    """A process that runs a peer, one call after the other. The process ends when the context is left."""

    def __init__(self, kind: str, folder: Path) -> None:
        """Start the process. Raises PeerError with the last line of its log if it does not start."""
        self._kind, self._log = kind, folder / f"{kind}.log"
        command = [sys.executable, "-m", "revdist.bench.peer_process", kind, str(folder)]
        with self._log.open("wb") as log:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, bufsize=0)
        self.number = self._process.pid
        self.score = float("nan")  # of the last call's first picture
        try:
            self._answer()
        except PeerError:
            self.close()
            raise

    def __enter__(self) -> PeerProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(self, count: int) -> float:
        """Return the seconds of a call with `count` pictures, by the clock of the process. Raises PeerError."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the end of its log says more
            self._process.stdin.write(f"{count}\n".encode())
        answer = self._answer()
        self.score = float(answer["score"])
        return float(answer["seconds"])

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._end()
        self._process.stdout.close()

    def _end(self) -> None:
        """Wait for the process to end; kill it if it does not end in time."""
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _answer(self) -> dict[str, str]:
        assert self._process.stdout is not None
        readable, _, _ = select.select([self._process.stdout], [], [], _TIMEOUT_S)
        line = self._process.stdout.readline() if readable else b""
        if not line:
            self._end()
            log_lines = self._log.read_text(errors="replace").strip().splitlines()
            cause = log_lines[-1] if log_lines else "no answer"
            raise PeerError(f"{self._kind} takes no part: {cause}", hint=_INSTALL[self._kind.partition("-")[0]])
        answer: dict[str, str] = json.loads(line)
        if "refused" in answer:
            raise PeerError(f"{self._kind} takes no part: {answer['refused']}")
        return answer
