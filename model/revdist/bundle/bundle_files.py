"""The files of a bundle: each with its SHA-256 in the manifest, written together or not at all."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path, PurePosixPath
from typing import Any

import numpy.typing as npt
import safetensors
import safetensors.numpy

from revdist.errors import BundleError
from revdist.files import folders, trouble

MANIFEST = "bundle.json"
FOREIGN = "copy or train the bundle again, then `revdist show` it"


def content(path: Path, name: str) -> bytes:
    """Read a file without a check. Raises BundleError, also where it is no regular file."""
    wrong = trouble.why_not_file(path / name)
    if wrong:
        raise BundleError(f"{trouble.shown(path / name)}: cannot be read: {wrong.cause}", hint=wrong.hint or FOREIGN)
    try:
        return (path / name).read_bytes()
    except trouble.FILE_ERRORS as error:
        raise trouble.error(BundleError, error, path / name, "read", hint=FOREIGN) from error


def checked(path: Path, name: str, sha256: str) -> bytes:
    """Read a file and check its SHA-256. Raises BundleError, also for a name that leads out of the bundle."""
    pure = PurePosixPath(name)
    if pure.is_absolute() or ".." in pure.parts or "\\" in name or name in ("", MANIFEST):
        raise BundleError(f"{path / MANIFEST}: the file name {name!r} leads out of the bundle", hint="do not use it")
    if not Path(os.path.realpath(path / name)).is_relative_to(os.path.realpath(path)):
        raise BundleError(f"{path / name}: a link that leads out of the bundle", hint="do not use it")
    data = content(path, name)
    if hashlib.sha256(data).hexdigest() != sha256:
        raise BundleError(f"{path / name}: differs from the manifest ({len(data)} bytes)", hint=FOREIGN)
    return data


def arrays(content: bytes, name: str) -> dict[str, npt.NDArray[Any]]:
    """Read the arrays of real numbers in a file of a bundle. Raises ValueError."""
    try:
        held = safetensors.numpy.load(content)
    except (safetensors.SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{name} holds no arrays: {error}") from error
    if any(array.dtype.kind != "f" for array in held.values()):
        raise ValueError(f"{name} holds something else than real numbers")
    return held


def check_place(path: Path, *, replace: bool) -> None:
    """Raises BundleError unless a bundle may be written there. `replace`: also over a bundle."""
    wrong = trouble.why_not_writable(path)
    if wrong:
        hint = wrong.hint or "choose another --output"
        raise BundleError(f"{trouble.shown(path)}: nothing can be written there: {wrong.cause}", hint=hint)
    a_bundle = trouble.why_not_file(path / MANIFEST) is None
    if a_bundle and not replace:
        raise BundleError(
            f"{path}: there is a bundle already", hint="choose another --output, or replace it with --replace"
        )
    if path.is_symlink() or (path.exists() and not a_bundle):
        raise BundleError(f"{trouble.shown(path)}: exists and is no bundle", hint="choose another --output")


def commit(path: Path, manifest: dict[str, Any], files: dict[str, bytes], *, replace: bool) -> None:
    """Write the files and the manifest, which gets their hashes, in one step, or raise BundleError."""
    check_place(path, replace=replace)
    manifest["files"] = {name: hashlib.sha256(data).hexdigest() for name, data in sorted(files.items())}
    text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False) + "\n"
    try:
        folders.write(path, {**files, MANIFEST: text.encode()})
    except trouble.FILE_ERRORS as error:
        told = trouble.explain(error, path, "written")
        raise BundleError(
            f"{trouble.shown(path)}: cannot be written: {told.cause}",
            hint=f"an older bundle there is as it was; {told.hint or 'try again'}",
        ) from error
