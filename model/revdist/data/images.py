"""Pictures: read them, prepare them, and list the pictures of a data folder.

All pictures for a model go through `prepare`: in training, calibration, evaluation and service.
H W height and width of the original picture, h w of the model's input. All pictures are RGB.
"""

from __future__ import annotations

import ctypes
import errno
import hashlib
import io
import logging
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from revdist.data import fitting, mask_names, pictures
from revdist.data.pictures import SUFFIXES
from revdist.data.pictures import Pixels as Pixels  # uint8 (H, W, 3) RGB
from revdist.data.reading import PLAIN, Fit, Reading
from revdist.errors import DataError, ImageError
from revdist.files import trouble

Size: TypeAlias = tuple[int, int]  # (height, width)

log = logging.getLogger("revdist")

LITTER = (  # files of operating systems, in lower case; hidden files, such as ._picture, are ignored too
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "@eadir", "__macosx", "#recycle", "@recycle"),
    *("$recycle.bin", "system volume information", "lost+found"),
)

PREPROCESSING = "rgb uint8, bilinear, antialiased"  # what `prepare` does, as bundles record it


def read(path: Path, how: Reading = PLAIN) -> Pixels:
    """Read a picture file (grey, RGB, RGBA, palette; 8 or 16 bit) as uint8 (H, W, 3) RGB, as pictures.decode does.

    Raises ImageError with the path and the cause for a missing, empty, damaged or too large file.
    """
    return decode(_content(path), path, how)


def decode(content: bytes, path: Path, how: Reading = PLAIN) -> Pixels:
    """Decode a picture file's content as `read` does. Raises ImageError with `path`, which is for the error alone."""
    try:
        decoded = pictures.decode(content, _limits(), bits=how.bits)
        return decoded if how.alignment is None else how.alignment.bring(decoded)
    except ImageError as error:
        raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error


def values(path: Path) -> pictures.Values:
    """Return the values of a picture file unchanged, see pictures.values. Raises ImageError with the path."""
    content = _content(path)
    try:
        return pictures.values(content, _limits())
    except ImageError as error:
        raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error


def _content(path: Path) -> bytes:
    try:
        return pictures.content(path, _limits())
    except trouble.FILE_ERRORS as error:
        raise trouble.error(ImageError, error, path, "read") from error
    except ImageError as error:
        raise ImageError(f"{trouble.shown(path)}: {error.message}", hint=error.hint) from error


def _limits() -> pictures.Limits:
    """Return the limits, which REVDIST_MAX_FILE_MB and REVDIST_MAX_MEGAPIXELS set, for larger scans."""
    return pictures.Limits(
        max_file_mb=_allowed("REVDIST_MAX_FILE_MB", pictures.DEFAULT.max_file_mb),
        max_megapixels=_allowed("REVDIST_MAX_MEGAPIXELS", pictures.DEFAULT.max_megapixels),
    )


def _allowed(variable: str, default: float) -> float:
    value = os.environ.get(variable, "")
    try:
        allowed = float(value) if value else default
    except ValueError:
        raise ImageError(f"{variable} is {value!r}, expected a number") from None
    if not 0 < allowed < math.inf:
        raise ImageError(f"{variable} is {value!r}, expected a number over 0")
    return allowed


def to_rgb(pixels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]) -> Pixels:
    """Convert a camera array, (H, W) or (H, W, 1|3|4) in RGB order, uint8 or uint16, to uint8 (H, W, 3).

    uint16 counts as full range: value / 257, rounded. Scale the values of a camera with fewer bits before.
    """
    if pixels.dtype == np.uint16:
        pixels = pictures.narrow(pixels)
    if pixels.dtype != np.uint8:
        raise ImageError(f"pixels are {pixels.dtype}, expected uint8 or uint16")
    pixels = np.asarray(pixels, np.uint8)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or 0 in pixels.shape:
        raise ImageError(f"pixels have shape {pixels.shape}, expected (H, W) or (H, W, 1|3|4) and not empty")
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3])


def prepare(pixels: Pixels, size: Size, fit: Fit = "stretch") -> Pixels:
    """Resize a picture to the model's input: the one preprocessing function.

    uint8 (H, W, 3) -> uint8 (h, w, 3), `size` = (h, w); bilinear with antialiasing, `fit` to its aspect ratio, on a
    channels-last view (equals PIL's bilinear within one grey level). The result is C-contiguous and not writeable.
    """
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ImageError(f"pixels are {pixels.dtype} {pixels.shape}, expected uint8 (H, W, 3)", hint="use to_rgb first")
    if pixels.shape[:2] == size:
        if pixels.flags.c_contiguous and not pixels.flags.writeable:
            return pixels
        prepared = np.array(pixels, order="C")
    elif fit == "pad":
        prepared = _padded(pixels, size, cv2.BORDER_REPLICATE)
    else:
        contiguous = np.ascontiguousarray(fitting.cut(pixels, size) if fit == "crop" else pixels)
        view = _tensor_over(contiguous).permute(2, 0, 1)[None]  # (1, 3, H, W) uint8, channels last
        resized = F.interpolate(view, size, mode="bilinear", antialias=True, align_corners=False)
        prepared = np.ascontiguousarray(resized[0].permute(1, 2, 0).numpy())
    prepared.flags.writeable = False
    return prepared


def _padded(pixels: Pixels, size: Size, border: int) -> Pixels:
    """Put the whole picture in the middle and fill the sides; `border`: OpenCV's border type."""
    inside = fitting.padded_part(pixels.shape, size)
    whole = prepare(pixels, (inside.height, inside.width))
    below, right = size[0] - inside.top - inside.height, size[1] - inside.left - inside.width
    return np.asarray(cv2.copyMakeBorder(whole, inside.top, below, inside.left, right, border), np.uint8)


def prepare_mask(pixels: Pixels, size: Size, fit: Fit) -> Pixels:
    """Prepare a mask (H, W, 3) as `prepare` does its picture; the padding around it is not defective."""
    if fit == "pad" and pixels.shape[:2] != size:
        return _padded(pixels, size, cv2.BORDER_CONSTANT)
    return prepare(pixels, size, fit)


def _tensor_over(pixels: Pixels) -> torch.Tensor:
    """Make a tensor that shares the array's memory; torch.from_numpy would warn if the array is not writeable."""
    memory = (ctypes.c_uint8 * pixels.size).from_address(pixels.ctypes.data)
    return torch.frombuffer(memory, dtype=torch.uint8).view(pixels.shape)


def encode_png(pixels: Pixels) -> bytes:
    """Encode a picture as a PNG file, from which `read` returns the same pixels."""
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, format="PNG")
    return encoded.getvalue()


def pictures_in(folder: Path) -> list[Path]:
    """List all pictures of a folder, by name. Hidden files are ignored; other files that are no pictures are errors.

    Raises DataError for a missing or empty folder, or that names a subfolder or a file of another kind.
    """
    entries = _entries(folder)
    for entry in entries:
        if entry.is_dir():
            raise DataError(f"{entry}: a folder among the pictures", hint="name the folder that holds the pictures")
        _check_suffix(entry)
    if not entries:
        raise DataError(f"{folder}: there are no pictures in it", hint=f"supported are {', '.join(SUFFIXES)}")
    return entries


def _check_suffix(file: Path) -> None:
    if file.suffix.lower() not in SUFFIXES:
        raise DataError(f"{file}: not a picture ({', '.join(SUFFIXES)})", hint="move it out of the folder")


def _entries(folder: Path) -> list[Path]:
    if wrong := trouble.why_not_folder(folder):
        missing = wrong.cause == os.strerror(errno.ENOENT)
        cause = "there is no such folder" if missing else f"cannot be listed: {wrong.cause}"
        raise DataError(f"{trouble.shown(folder)}: {cause}", hint=wrong.hint)
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    litter = [entry.name for entry in entries if entry.name.lower() in LITTER]
    if litter:
        log.info("%s: %s left alone, which systems put there", trouble.shown(folder), ", ".join(litter))
    return [entry for entry in entries if entry.name not in litter]


def pictures_below(folder: Path) -> list[Path]:
    """List all pictures of a folder and of its subfolders, which hold a lot each; by path.

    Raises DataError as `pictures_in` does for each folder.
    """
    entries = _entries(folder)
    inner = [entry for entry in entries if entry.is_dir()]
    if not inner:
        return pictures_in(folder)
    beside = [entry for entry in entries if not entry.is_dir()]
    for entry in beside:
        _check_suffix(entry)
    return sorted(beside + [path for subfolder in inner for path in pictures_in(subfolder)])


def good_folder(folder: Path) -> Path:
    """Return the folder of the good parts' pictures: the folder itself, or train/good of an MVTec layout."""
    inner = folder / "train" / "good"
    if os.path.isdir(inner):  # noqa: PTH112 - says False below a closed folder
        return inner
    if os.path.isdir(folder / "train"):  # noqa: PTH112
        kind = mask_names.good_kind([entry.name for entry in _entries(folder / "train")], "train")
        return folder / "train" / kind
    return folder


def good_pictures(folder: Path) -> list[Path]:
    """List the pictures of good parts in a plain folder or an MVTec layout."""
    return pictures_in(good_folder(folder))


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A test picture of the MVTec layout."""

    path: Path
    kind: str  # name of its folder; "good" is good
    mask: Path | None  # None for good pictures, and where the data has no masks

    @property
    def defective(self) -> bool:
        return self.kind != "good"


def labelled_pictures(root: Path) -> list[Sample]:
    """List the test pictures below test/<kind>, with their masks from ground_truth/<kind> (MVTec layout).

    Either every defective picture has a mask or there is no ground_truth folder. Raises DataError otherwise.
    """
    wrong = trouble.why_not_folder(root / "test")
    if wrong and wrong.hint:
        raise DataError(f"{trouble.shown(root / 'test')}: cannot be listed: {wrong.cause}", hint=wrong.hint)
    if wrong:
        raise DataError(
            f"{trouble.shown(root)}: there is no folder test in it",
            hint="expected test/good and test/<kind of defect>, as in MVTec AD",
        )
    kinds = _entries(root / "test")
    good = mask_names.good_kind([kind.name for kind in kinds])
    masked = mask_names.has_masks(root)
    samples = []
    for kind in kinds:
        for path in pictures_in(kind):
            mask = mask_names.find(root, kind.name, path) if masked and kind.name != good else None
            samples.append(Sample(path=path, kind="good" if kind.name == good else kind.name, mask=mask))
    if len({sample.defective for sample in samples}) != 2:
        raise DataError(
            f"{root / 'test'}: both good and defective pictures are needed, in it are "
            f"{', '.join(kind.name for kind in kinds)}",
            hint="good ones in test/good, defective ones in test/<kind of defect>",
        )
    return samples


def content_hash(path: Path) -> str:
    """Return the SHA-256 of a file's content, hexadecimal. Raises ImageError where it cannot be read."""
    return hashlib.sha256(_content(path)).hexdigest()


def fingerprint(paths: Sequence[Path]) -> str:
    """Return the SHA-256 over a data set's names and contents, hexadecimal; the order of the list is irrelevant."""
    lines = sorted(f"{path.name}\0{content_hash(path)}\n" for path in paths)
    return hashlib.sha256("".join(lines).encode("utf-8", "surrogateescape")).hexdigest()


def fingerprint_of(hashes: Iterable[str]) -> str:
    """Return the SHA-256 over contents alone, from the SHA-256 of each picture."""
    return hashlib.sha256("".join(f"{sha256}\n" for sha256 in sorted(hashes)).encode()).hexdigest()
