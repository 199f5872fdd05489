"""A detector made fast for one device and precision: one teacher, and a student for each product.

B pictures of a batch, h w their size. Batch norms are folded into the convolutions, memory is channels last, and the
only copy from the device that `inspect` makes is the one of the scores. On a processor operations are fused (fused.py)
and a batch goes through in parts that its caches hold.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.utils import fusion

from revdist import detector, fused
from revdist.errors import ImageError, RevdistError
from revdist.recipe import check_size
from revdist.teacher import Teacher, channels

Size = tuple[int, int]
Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True, slots=True)
class Placed:
    """A student in an engine, ready to run."""

    student: nn.Module
    spread: detector.Spread
    size: Size  # of its input
    top_share: float  # of the map's values whose mean is the score; 0 for the highest


Table = Mapping[str, Placed]

_AT_ONCE = {"efficientnet_lite0": 2}  # pictures that a processor has under way: its maps are large, its weights small
_AT_ONCE_ELSE = 4  # here the weights are large
_EXAMPLE = 64  # pixels a side of the picture that a network is recorded on; any would do


class Inspection:
    """What `Engine.inspect` found, in the order of the pictures."""

    def __init__(self, scores: npt.NDArray[np.float32], maps: Sequence[torch.Tensor]) -> None:
        self.scores = scores  # (B,) float32, raw
        self._maps = maps  # B tensors (h, w) on the device

    def map(self, index: int) -> npt.NDArray[np.float32]:
        """The smoothed anomaly map of a picture, float32 (h, w), copied from the device now."""
        return np.asarray(self._maps[index].cpu().numpy())


class Engine:
    """Scores batches that mix products.

    One thread calls `inspect`; `add` and `remove` may come from another one: each swaps the table of students in one
    step, and an `inspect` that is under way ends with the table that it began with.
    """

    def __init__(self, teacher: Teacher, *, device: str = "auto", precision: str = "float32") -> None:
        if precision != "float32":
            raise RevdistError(f"engine: precision {precision!r} is not supported", hint="use float32")
        self.device = _device(device)
        self.identity = f"torch-{self.device.type}-{precision}"
        self.teacher_name = teacher.name
        self.teacher_sha256 = teacher.sha256
        self._fuses = self.device.type == "cpu" and fused.available()
        self._teacher = optimise(teacher, self.device)
        if self._fuses:
            self._teacher.trunk = fused.fuse(self._teacher.trunk, torch.zeros(1, 3, _EXAMPLE, _EXAMPLE))
        self._at_once = _AT_ONCE.get(teacher.name, _AT_ONCE_ELSE) if self.device.type == "cpu" else 0  # 0: all
        self._students: Table = MappingProxyType({})
        self._writing = threading.Lock()
        if self.device.type == "cuda":  # float32 means float32: TF32 would change the scores in the third digit
            torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
            torch.backends.cuda.matmul.fp32_precision = "ieee"

    @property
    def products(self) -> frozenset[str]:
        return frozenset(self._students)

    def size(self, product: str) -> Size:
        """The input size (h, w) of a product. Raises RevdistError for a product that was not added."""
        return self._placed(self._students, product).size

    def add(self, product: str, student: nn.Module, size: Size, scoring: detector.Scoring = detector.PLAIN) -> None:
        """Take in a trained student (it is copied), scored as its recipe says; one of the same name is replaced."""
        check_size(size)
        ready: nn.Module = optimise(student, self.device)
        if self._fuses:
            example = zip(channels(self.teacher_name), detector.STRIDES, strict=True)
            ready = fused.fuse(ready, *(torch.zeros(1, c, _EXAMPLE // s, _EXAMPLE // s) for c, s in example))
        spread = detector.Spread(size, self.device, scoring)
        placed = Placed(ready, spread, size, scoring.top_share)
        with self._writing:
            self._students = MappingProxyType({**self._students, product: placed})

    def remove(self, product: str) -> None:
        """Forget a product; nothing happens where there is none of that name."""
        with self._writing:
            self._students = MappingProxyType({k: v for k, v in self._students.items() if k != product})

    def rename(self, old: str, new: str) -> None:
        """Put the student of `old` in the place of `new`, in one step."""
        with self._writing:
            ready = self._placed(self._students, old)
            rest = {k: v for k, v in self._students.items() if k != old}
            self._students = MappingProxyType({**rest, new: ready})

    @torch.inference_mode()
    def inspect(self, pixels: Sequence[npt.NDArray[np.uint8]], products: Sequence[str]) -> Inspection:
        """Score pictures, uint8 (h, w, 3) each, prepared at the size of their product; sizes may be mixed.

        The score of a picture does not depend on the batch that it comes in (beyond rounding, 1e-6 relative).
        Raises ImageError for a picture of a wrong size, RevdistError for an unknown product.
        """
        students = self._students
        groups = self._groups(pixels, products, students)
        maps: dict[int, torch.Tensor] = {}
        found: list[torch.Tensor] = []  # scores of each group, on the device
        order: list[int] = []
        for rows in groups.values():
            batch = self._upload([pixels[row] for row in rows])  # (b, h, w, 3) uint8
            smoothed = self.maps(batch, [products[row] for row in rows], students)  # (b, h, w)
            found += self._scores(smoothed, [students[products[row]].top_share for row in rows])
            order += rows
            maps.update(zip(rows, smoothed, strict=True))
        scores = np.empty(len(order), np.float32)
        if order:
            scores[order] = torch.cat(found).cpu().numpy()  # the one copy to the host, the one synchronisation
        return Inspection(scores, [maps[row] for row in range(len(order))])

    @torch.inference_mode()
    def scale_maps(self, pixels: npt.NDArray[np.uint8], product: str) -> npt.NDArray[np.float32]:
        """Smoothed maps of the scales that count, of a prepared picture (h, w, 3): float32 (n, h, w), fine to coarse.

        They add up to the map that `inspect` gives, because smoothing is linear. Where scales multiply, the product of
        their smoothed maps is only near it.
        """
        placed = self._placed(self._students, product)
        taught = self.features([pixels])
        distances = detector.distances(taught, placed.student(taught))
        return np.asarray(torch.cat(list(placed.spread.scales(distances))).cpu().numpy())

    @staticmethod
    def _scores(maps: torch.Tensor, top_shares: Sequence[float]) -> list[torch.Tensor]:
        """Each map's score (1,), or in one tensor where all products of the batch are scored alike."""
        if len(set(top_shares)) == 1:
            return [detector.scores(maps, top_shares[0])]
        return [detector.scores(maps[row : row + 1], share) for row, share in enumerate(top_shares)]

    @torch.no_grad()
    def features(self, pixels: Sequence[npt.NDArray[np.uint8]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The three maps of the teacher for prepared pictures of one size, on the device: what training needs."""
        return self._teacher(detector.normalise(self._upload(pixels), self._teacher))  # type: ignore[no-any-return]

    def maps(self, batch: torch.Tensor, products: Sequence[str], students: Table | None = None) -> torch.Tensor:
        """Smoothed anomaly maps of one batch: uint8 (b, h, w, 3) on the device -> float32 (b, h, w) on the device."""
        table = self._students if students is None else students
        rows_of = _rows(products)
        order = [row for rows in rows_of.values() for row in rows]  # each product's pictures side by side
        batch = batch if len(rows_of) == 1 else _take(batch, order)
        parts: list[torch.Tensor] = []
        for part in self._parts(len(order)):
            parts += self._maps(batch[part], [products[row] for row in order[part]], table)
        maps = parts[0] if len(parts) == 1 else torch.cat(parts)
        return maps if len(rows_of) == 1 else _take(maps, sorted(range(len(order)), key=order.__getitem__))

    def _maps(self, batch: torch.Tensor, products: Sequence[str], table: Table) -> Iterator[torch.Tensor]:
        """Maps of pictures that are ordered by product, in one tensor (b', h, w) for each product."""
        taught = self._teacher(detector.normalise(batch, self._teacher))  # one pass for all products
        for product, rows in _rows(products).items():
            placed = self._placed(table, product)
            for part in self._parts(len(rows)):
                own = [features[rows[0] :][part] for features in taught]
                yield placed.spread(detector.distances(own, placed.student(own)))

    def _parts(self, count: int) -> Iterator[slice]:
        """Which pictures run together. On a processor in powers of two, because weights are packed for each number."""
        begin, at_once = 0, self._at_once or count
        while begin < count:
            while at_once > count - begin:
                at_once //= 2
            yield slice(begin, begin + at_once)
            begin += at_once

    def warm(self, batch_sizes: Iterable[int]) -> None:
        """Run each product once at each batch size, so that no first frame waits for set-up.

        Where batches go through in parts, at each size that a part of them can have, in mixed batches too.
        """
        if self._at_once:
            most = min(self._at_once, max(batch_sizes, default=0))
            batch_sizes = [2**power for power in range(most.bit_length())]
        for product, placed in self._students.items():
            for count in batch_sizes:
                self.inspect([np.zeros((*placed.size, 3), np.uint8)] * count, [product] * count)

    @staticmethod
    def _placed(table: Table, product: str) -> Placed:
        try:
            return table[product]
        except KeyError:
            known = ", ".join(sorted(table)) or "none"
            raise RevdistError(f"engine: there is no product {product!r}", hint=f"loaded: {known}") from None

    def _groups(
        self,
        pixels: Sequence[npt.NDArray[np.uint8]],
        products: Sequence[str],
        students: Table,
    ) -> dict[Size, list[int]]:
        groups: dict[Size, list[int]] = {}
        for row, (picture, product) in enumerate(zip(pixels, products, strict=True)):
            size = self._placed(students, product).size
            if picture.dtype != np.uint8 or picture.shape != (*size, 3):
                raise ImageError(
                    f"engine: a picture of {product} is {picture.dtype} {picture.shape}, expected uint8 {(*size, 3)}",
                    hint="call images.prepare first",
                )
            groups.setdefault(size, []).append(row)
        return groups

    def _upload(self, pictures: Sequence[npt.NDArray[np.uint8]]) -> torch.Tensor:
        """One transfer, from pinned memory on CUDA; torch's allocator keeps that memory until the copy is done."""
        pinned = self.device.type == "cuda"
        staged = torch.empty((len(pictures), *pictures[0].shape), dtype=torch.uint8, pin_memory=pinned)
        np.stack(pictures, out=staged.numpy())
        return staged.to(self.device, non_blocking=True)


def optimise(module: Module, device: torch.device) -> Module:
    """A copy for inference: evaluation mode, batch norms folded, channels last, on the device."""
    try:
        copied = _copy(module, device).eval()
    except (RuntimeError, AssertionError) as error:  # torch has no class of its own for a device that is not there
        raise RevdistError(f"engine: cannot use device {device}: {error}", hint="use cpu or auto") from error
    fold_batch_norms(copied)
    for part in copied.modules():
        if isinstance(part, nn.Conv2d | nn.ConvTranspose2d):
            part.weight = _frozen(part.weight.contiguous(memory_format=torch.channels_last))
    return copied


def _copy(module: Module, device: torch.device) -> Module:
    """The module with tensors of its own on the device. Not deepcopy and `to`: those fail in torch's FakeTensorMode."""
    twin = copy.copy(module)
    tensors, buffers = module._parameters.items(), module._buffers.items()
    twin._parameters = {name: None if each is None else _frozen(each.to(device, copy=True)) for name, each in tensors}
    twin._buffers = {name: None if each is None else each.to(device, copy=True) for name, each in buffers}
    twin._modules = {name: None if part is None else _copy(part, device) for name, part in module._modules.items()}
    return twin


def _frozen(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach(), requires_grad=False)


def fold_batch_norms(module: nn.Module) -> None:
    """Fold each batch norm into the convolution registered right before it, in place. None may remain.

    A transposed convolution folds over dim 1 of its weight (in, out, k, k).
    """
    for parent in list(module.modules()):
        before: nn.Module | None = None
        for name, part in list(parent.named_children()):
            if isinstance(part, nn.BatchNorm2d):
                assert isinstance(before, nn.Conv2d | nn.ConvTranspose2d), f"no convolution before {name}"
                _fold(before, part)
                setattr(parent, name, nn.Identity())
            before = part


def _fold(convolution: nn.Conv2d | nn.ConvTranspose2d, norm: nn.BatchNorm2d) -> None:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    transposed = isinstance(convolution, nn.ConvTranspose2d)
    weight, bias = fusion.fuse_conv_bn_weights(
        convolution.weight,
        convolution.bias,
        norm.running_mean,
        norm.running_var,
        norm.eps,
        norm.weight,
        norm.bias,
        transpose=transposed,
    )
    convolution.weight, convolution.bias = weight, bias


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise RevdistError(f"engine: there is no device {name!r}", hint="use auto, cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise RevdistError(f"engine: device {name!r} is not supported", hint="use auto, cpu or cuda")
    return device


def _rows(products: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, product in enumerate(products):
        rows.setdefault(product, []).append(row)
    return rows


def _take(tensor: torch.Tensor, rows: Sequence[int]) -> torch.Tensor:
    """Rows of a batch. Slices and stacks, because an index from the host would be one more transfer."""
    if list(rows) == list(range(rows[0], rows[-1] + 1)):
        return tensor[rows[0] : rows[-1] + 1]
    return torch.stack([tensor[row] for row in rows])
