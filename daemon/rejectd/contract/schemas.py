"""Builds the JSON Schema (draft 2020-12) of every message from the models in requests.py, bodies.py and results.py.

The tests validate every message that payloads.py builds, and every message of a running line.
"""

from __future__ import annotations

from rejectd.contract.bodies import MESSAGES
from rejectd.contract.json_schema import Schema, described, described_type, sentence, titled
from rejectd.contract.results import RESULTS


def schemas() -> dict[str, Schema]:
    """Every schema by its name, each for a file of its own."""
    return {name: titled(name, sentence(message)) | described_type(message) for name, message in MESSAGES.items()}


def components() -> dict[str, Schema]:
    """Every schema by its name, as a component of a larger document."""
    return {name: {"description": sentence(message)} | described_type(message) for name, message in MESSAGES.items()}


def request(command: str) -> Schema:
    """The request of a command."""
    return schemas()[f"request-{command}"]


def result(command: str) -> Schema:
    """The result in the answer to a command that was carried out."""
    return described(RESULTS[command])
