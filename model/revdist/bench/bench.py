"""Measures how fast a detector's engines are, in one run with peers and with probes of the machine.

All contestants take turns. A round calls every engine and peer once, every engine's network alone once, and every probe
of the machine (see machine.py) once, so that a disturbance of the machine hits all alike. Medians of one run are
compared with one another, never with medians of another run.

Every call has a pause before it. On two idle cores, with a WideResNet50-2 in bfloat16 and OpenVINO in turns, our median
call took 72 ms whatever came before. OpenVINO's took 65 ms alone, 68 ms right after ours, whose threads still spin, and
65 ms after a pause of 5 ms, in a process of its own as in ours. Other programs disturb far more: see machine.Elsewhere.
"""

from __future__ import annotations

import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from revdist.bench import defaults, machine, peers, workload
from revdist.bench.machine import Probe
from revdist.bench.official_loop import OfficialLoop
from revdist.bench.peers import Contestant, PeerError, Wanted
from revdist.bench.subject import Subject
from revdist.data import images
from revdist.data.images import Pixels
from revdist.engines import backend
from revdist.engines.engine import Engine
from revdist.errors import RevdistError
from revdist.scoring import detector

_VERSIONS = ("rejectd", "torch", "torchvision", "numpy", "scipy", "pillow", "onnx", "openvino", "anomalib")
_PAUSE_S = 0.01  # before each call: threads of the call before spin for some milliseconds
_AT_ONCE = 4  # pictures of a probed convolution: as many as a processor works on at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The settings of a bench. The constructor checks the values; a wrong value raises RevdistError."""

    engines: tuple[str, ...] = ()  # none: every precision that this machine has
    device: str = "auto"  # of those engines, where none is named
    against: tuple[Wanted, ...] = (Wanted(name=defaults.PEER),)
    batches: tuple[int, ...] = defaults.BATCHES
    picture: int = defaults.PICTURE_PX
    seconds: float = defaults.SECONDS

    def __post_init__(self) -> None:
        right = bool(self.batches) and all(1 <= batch <= 4096 for batch in self.batches)
        for name, value, fine, expected in (
            ("batches", self.batches, right, "numbers from 1 to 4096, one at least"),
            ("picture", self.picture, 1 <= self.picture <= 16384, "1 to 16384 pixels"),
            ("seconds", self.seconds, 0 <= self.seconds < 1e6, "0 or more"),
        ):
            if not fine:
                raise RevdistError(f"bench: {name} is {value}, must be {expected}")

    def targets(self) -> list[backend.Backend]:
        """Return the backends that the engines run on. Raises RevdistError for a backend that this machine lacks."""
        if not self.engines:
            return backend.available(self.device)
        names = [backend.parse(name) for name in dict.fromkeys(self.engines)]
        return [backend.target(name.device, name.precision, name.runtime) for name in names]


@dataclass(slots=True, kw_only=True, eq=False)
class Row:
    """The times of an engine or a peer at one batch size."""

    name: str
    batch: int
    pictures: int  # of a call: the batch, or fewer if the peer takes fewer
    precision: str
    calls: list[float] = field(default_factory=list)  # seconds, from pictures to scores
    networks: list[float] = field(default_factory=list)  # seconds, of teacher and student alone

    @property
    def per_picture(self) -> float:
        """Median seconds of a call, for one picture."""
        return float(np.median(self.calls)) / self.pictures

    @property
    def network_per_picture(self) -> float | None:
        return float(np.median(self.networks)) / self.pictures if self.networks else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The highest rate that was measured for one kind of operation on this machine."""

    precision: str
    kind: str
    what: str
    operations_per_second: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """The largest relative difference between an engine and the paper's loop, over some pictures."""

    name: str
    map: float  # relative to the map's highest value
    score: float
    pictures: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The results of one bench run."""

    subject: str
    teacher: str
    size: tuple[int, int]
    operations: int  # of the networks, for one picture
    plan: Plan
    rows: Sequence[Row]
    rates: Sequence[Rate]
    differences: Sequence[Difference]
    missing: Sequence[PeerError]
    machine: dict[str, Any]

    @property
    def reference(self) -> str:
        """The first peer that took part: the others are compared with it. Empty without a peer."""
        ours = {row.name for row in self.rows if row.precision}
        return next((row.name for row in self.rows if row.name not in ours), "")


def bench(subject: Subject, plan: Plan) -> Bench:
    """Measure engines and peers. Raises RevdistError for an unusable engine or checkout; other peers may be missing."""
    tiles = subject.recipe.tiles
    targets, work = plan.targets(), workload.of_detector(subject.teacher.trunk, subject.student, tiles.tile)
    picture = subject.picture(plan.picture)
    with ExitStack() as stack:
        engines = [_engine(target, subject) for target in targets]
        started_peers = peers.start(plan.against, subject, picture, targets[0].device, stack)
        contestants = [_contestant(*pair, subject, picture) for pair in zip(engines, targets, strict=True)]
        contestants += started_peers.contestants
        probes = [
            (target, probe) for target in targets for probe in machine.probes(target, work, _at_once(target, plan))
        ]
        load, elsewhere = os.getloadavg(), machine.Elsewhere(started_peers.processes)
        rounds = _Rounds(contestants, probes)
        for batch in sorted(plan.batches):
            rounds.run(batch, plan.seconds / len(plan.batches))
        description = machine.describe() | {"load_before": load, "load_after": os.getloadavg(), "versions": _versions()}
        description["elsewhere"] = elsewhere.share()
        compared = started_peers.loops if subject.scoring == detector.PLAIN else []
        return Bench(
            subject=subject.name,
            teacher=subject.teacher.name,
            size=subject.size,
            operations=workload.operations(work) * tiles.count,
            plan=plan,
            rows=rounds.rows,
            rates=rounds.rates(),
            differences=[_difference(engine, loop, subject) for loop in compared for engine in engines],
            missing=[*started_peers.missing, *rounds.lost],
            machine=description,
        )


def _at_once(where: backend.Backend, plan: Plan) -> int:
    return max(plan.batches) if where.device.type == "cuda" else _AT_ONCE


def _versions() -> dict[str, str]:
    installed = {distribution.metadata["Name"].lower() for distribution in importlib.metadata.distributions()}
    return {name: importlib.metadata.version(name) for name in _VERSIONS if name in installed}


def _engine(where: backend.Backend, subject: Subject) -> Engine:
    if where.identity == subject.plain.identity:
        return subject.plain
    engine = Engine(subject.teacher, device=str(where.device), precision=where.precision, runtime=where.runtime)
    subject.add_to(engine)
    return engine


def _contestant(engine: Engine, where: backend.Backend, subject: Subject, picture: Pixels) -> Contestant:
    prepared = images.prepare(picture, subject.size)
    networks: dict[int, Callable[[], object]] = {}

    def inspect(count: int) -> object:
        pictures = [images.prepare(picture, subject.size) for _ in range(count)]
        return engine.inspect(pictures, [subject.name] * count).scores

    def network(count: int) -> float:
        if count not in networks:
            networks[count] = engine.networks([prepared] * count, subject.name)
        return machine.seconds(networks[count], where.device)

    return Contestant(
        name=engine.identity,
        call=lambda count: machine.seconds(lambda: inspect(count), where.device),
        network=network,
        precision=where.precision,
    )


class _Rounds:
    """Runs rounds of calls and keeps their times."""

    def __init__(self, contestants: Sequence[Contestant], probes: Sequence[tuple[backend.Backend, Probe]]) -> None:
        self._contestants, self._probes = list(contestants), probes
        self._best = [float("inf")] * len(probes)  # seconds
        self.rows: list[Row] = []
        self.lost: list[PeerError] = []  # errors of peers that failed on the way: the rounds go on without them

    def run(self, batch: int, seconds: float) -> None:
        """Run one round to warm up, then rounds for this many seconds, at least one."""
        rows = [
            Row(
                name=contestant.name,
                batch=batch,
                pictures=min(batch, contestant.most or batch),
                precision=contestant.precision,
            )
            for contestant in self._contestants
        ]
        self._round(rows)
        for row in rows:
            row.calls.clear()
            row.networks.clear()
        end = time.perf_counter() + seconds
        while not rows[0].calls or time.perf_counter() < end:
            self._round(rows)
        self.rows += rows

    def _round(self, rows: list[Row]) -> None:
        """Call every contestant and fill its row of `rows`; a contestant that fails is dropped with its row."""
        for contestant, row in list(zip(self._contestants, rows, strict=True)):
            try:
                _turn(contestant, row)
            except PeerError as error:
                self.lost.append(error)
                self._contestants.remove(contestant)
                rows.remove(row)
        with torch.inference_mode():
            for place, (where, probe) in enumerate(self._probes):
                self._best[place] = min(self._best[place], machine.seconds(probe.call, where.device))

    def rates(self) -> list[Rate]:
        """Return the best matrix product and the best convolution of each precision."""
        best: dict[tuple[str, str], Rate] = {}
        for (_, probe), seconds in zip(self._probes, self._best, strict=True):
            rate = Rate(
                precision=probe.precision,
                kind=probe.kind,
                what=probe.what,
                operations_per_second=probe.operations / seconds,
            )
            fastest = best.setdefault((probe.precision, probe.kind), rate)
            if rate.operations_per_second > fastest.operations_per_second:
                best[probe.precision, probe.kind] = rate
        return list(best.values())


def _turn(contestant: Contestant, row: Row) -> None:
    time.sleep(_PAUSE_S)
    row.calls.append(contestant.call(row.pictures))
    if contestant.network is not None:
        time.sleep(_PAUSE_S)
        row.networks.append(contestant.network(row.pictures))


def _difference(engine: Engine, loop: OfficialLoop, subject: Subject) -> Difference:
    ours = engine.inspect(subject.pictures, [subject.name] * len(subject.pictures))
    maps, scores = [], []
    for place, pixels in enumerate(subject.pictures):
        theirs, score = loop(pixels)
        maps.append(float(np.abs(ours.map(place) - theirs).max() / theirs.max()))
        scores.append(abs(float(ours.scores[place]) - score) / score)
    return Difference(name=engine.identity, map=max(maps), score=max(scores), pictures=len(maps))
