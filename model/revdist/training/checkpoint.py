"""The state of a stopped training run: a folder beside the bundle-to-be, without pickle.

state.json: what the run is, and its progress; state.safetensors: student, moving average and optimiser.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from revdist.errors import TrainError
from revdist.files import folders, trouble

log = logging.getLogger("revdist")

SCHEMA = 1
_JSON = "state.json"
_TENSORS = "state.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """The pictures that a run trains with and those that it holds out: SHA-256 by name."""

    trained: dict[str, str]
    held_out: dict[str, str]
    seen: frozenset[str] = frozenset()  # SHA-256 of pictures that only earlier steps were trained with

    def differences(self, now: Sides) -> str:
        """Name the pictures that have changed, gone or come since."""
        before, after = self.trained | self.held_out, now.trained | now.held_out
        kinds = (
            ("changed", [name for name in before if name in after and before[name] != after[name]]),
            ("gone", [name for name in before if name not in after]),
            ("new", [name for name in after if name not in before]),
        )
        return "; ".join(f"{kind}: {_named(names)}" for kind, names in kinds if names)

    @property
    def all_seen(self) -> frozenset[str]:
        return self.seen | frozenset(self.trained.values())


def _named(names: list[str], most: int = 5) -> str:
    return ", ".join(sorted(names)[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def sides_of_stopped(folder: Path) -> Sides | None:
    """Return the pictures of a stopped run; None where there is no such run, or its state does not name them."""
    try:
        sides = json.loads((folder / _JSON).read_text())["sides"]
        return Sides(trained=dict(sides["trained"]), held_out=dict(sides["held_out"]), seen=frozenset(sides["seen"]))
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return None


def recipe_of_stopped(folder: Path) -> dict[str, Any]:
    """Return what identifies a stopped run, such as its recipe; empty where there is no such run."""
    try:
        run = json.loads((folder / _JSON).read_text())["run"]
    except (OSError, KeyError, TypeError, ValueError, RecursionError):
        return {}
    return run if isinstance(run, dict) else {}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The folder of a run's state, and what identifies the run: recipe, data, teacher, device."""

    folder: Path
    run: dict[str, Any]
    sides: Sides | None = None
    go_on: bool = False  # even if the pictures have changed since the run was stopped

    def save(self, models: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, losses: list[float]) -> None:
        """Write the state after `len(losses)` steps, in one step. Raises TrainError where the disk is full."""
        tensors = {
            f"{model}.{name}": value for model, module in models.items() for name, value in module.state_dict().items()
        }
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
        content = safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()})
        text = json.dumps({"schema": SCHEMA, "run": self.run, "losses": losses, "sides": self._sides()})
        try:
            folders.write(self.folder, {_TENSORS: content, _JSON: text.encode()})
        except trouble.FILE_ERRORS as error:
            raise trouble.error(
                TrainError, error, self.folder, "written", hint="the run's state is kept there"
            ) from error

    def restore(self, models: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer) -> list[float]:
        """Load the state and return the losses so far; an empty list where there is no state.

        Raises TrainError for the state of another run, or a damaged one.
        """
        if not os.path.lexists(self.folder):
            return []
        delete = f"delete {self.folder} to start anew"
        try:
            saved = json.loads((self.folder / _JSON).read_text())
            self._check_same(saved, delete)
            tensors = safetensors.torch.load((self.folder / _TENSORS).read_bytes())
            for model, module in models.items():
                module.load_state_dict(_below(model, tensors))
            optimiser.load_state_dict(
                {"state": _optimiser_state(tensors), "param_groups": optimiser.state_dict()["param_groups"]}
            )
            return [float(loss) for loss in saved["losses"]]
        except (
            OSError,
            RecursionError,
            KeyError,
            TypeError,
            ValueError,
            RuntimeError,
            safetensors.SafetensorError,
        ) as error:
            raise TrainError(f"{self.folder}: the state of the stopped run is damaged: {error}", hint=delete) from error

    def _sides(self) -> dict[str, Any] | None:
        if self.sides is None:
            return None
        return {
            "trained": self.sides.trained,
            "held_out": self.sides.held_out,
            "seen": sorted(self.sides.seen),
        }

    def _check_data(self, delete: str) -> None:
        """Name the pictures that differ from the stopped run's: in a warning if `go_on`, else in a TrainError."""
        before = sides_of_stopped(self.folder)
        told = before.differences(self.sides) if before and self.sides else ""
        if self.go_on:
            log.warning("going on with other pictures than the run was stopped with; %s", told)
            return
        raise TrainError(
            f"{self.folder}: the pictures are not those that the run was stopped with; {told}",
            hint=f"put them back, or add --go-on to go on with those of now, or {delete}",
        )

    def _check_same(self, saved: dict[str, Any], delete: str) -> None:
        run = json.loads(json.dumps(self.run))  # tuples become lists
        if saved["schema"] != SCHEMA or saved["run"].keys() != run.keys():
            raise TrainError(f"{self.folder}: a stopped run of another version of revdist", hint=delete)
        for key, now in run.items():
            if saved["run"][key] != now and key == "data":
                self._check_data(delete)
            elif saved["run"][key] != now:
                difference = f"{key} was {saved['run'][key]}, is {now}"
                raise TrainError(
                    f"{self.folder}: holds a stopped run of another kind: {difference}",
                    hint=f"give the same options to go on with it, or {delete}",
                )

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


def _below(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {
        name.removeprefix(f"{prefix}."): tensor for name, tensor in tensors.items() if name.startswith(f"{prefix}.")
    }


def _optimiser_state(tensors: dict[str, torch.Tensor]) -> dict[int, dict[str, torch.Tensor]]:
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, value in _below("optimiser", tensors).items():
        index, _, entry = name.partition(".")
        state.setdefault(int(index), {})[entry] = value
    return state
