"""Students that a GPU's memory holds, and those that wait in the host's: a line makes few of its products at a time.

A student of a WideResNet50-2 takes 168 MB in 16 bits. From pinned memory it comes in within 15 ms over PCIe 4.0 x8, by
arithmetic: it was not measured.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import replace
from types import MappingProxyType

import torch
from torch import nn

from revdist.engines.folding import copied
from revdist.engines.loaded_product import LoadedProduct, Table

_HOST = torch.device("cpu")


class Residents:
    """Decides which students stay on the device: at most so many, those used last."""

    def __init__(self, device: torch.device, most: int) -> None:
        """`most`: 0 for all of them."""
        self._device, self._most = device, most
        self._clock = itertools.count()
        self._used: dict[str, int] = {}  # when, by product

    def admit(self, placed: LoadedProduct) -> LoadedProduct:
        """With a copy that can wait, of a student that is on the device."""
        return replace(placed, waiting=copied(placed.student, _HOST)) if self._most else placed

    def settle(self, table: Table, products: Collection[str]) -> Table:
        """The table with the students of these products on the device, however many, and as many others as may stay.

        The table itself where nothing changes. Products that it does not have are left to whoever asks for them.
        """
        if not self._most:
            return table
        needed = table.keys() & products
        here = {product for product, placed in table.items() if not placed.waits}
        self._used |= dict.fromkeys(needed, next(self._clock))
        if needed <= here and len(here) <= self._most:
            return table
        others = sorted(here - needed, key=lambda product: self._used.get(product, -1), reverse=True)
        going = others[max(0, self._most - len(needed)) :]
        came = {product: replace(table[product], student=self._fetched(table[product])) for product in needed - here}
        gone = {product: replace(table[product], student=_waiting(table[product])) for product in going}
        table = MappingProxyType({**table, **came, **gone})
        self._used = {product: when for product, when in self._used.items() if product in table}
        return table

    def _fetched(self, placed: LoadedProduct) -> nn.Module:
        return copied(_waiting(placed), self._device)


def _waiting(placed: LoadedProduct) -> nn.Module:
    assert placed.waiting is not None, "a student was not admitted"
    return placed.waiting
