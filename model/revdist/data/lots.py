"""Blocks: pictures that belong together, such as those of a lot or a day, as their paths tell.

Pictures of one lot resemble one another more than those of the next. A threshold from pictures of the lots that were
trained with promises too much for the lots to come, so whole blocks are held out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from revdist.errors import DataError

FOLDERS = "folders"  # the pattern that takes each folder as a block
_FOLDERS = re.compile(r"([^/]+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """How the held-out pictures of one block fare at a threshold from the other blocks alone."""

    name: str
    pictures: int
    rejected: int


def usable(pattern: str) -> bool:
    """Whether it can tell blocks: empty for none, `folders`, or a regular expression with one group."""
    try:
        return pattern in ("", FOLDERS) or re.compile(pattern).groups == 1
    except re.error:
        return False


def names(pattern: str, files: Sequence[PurePath]) -> list[str]:
    """The block of each file: what the group of a usable pattern finds in its path, relative to the data's folder.

    Raises DataError where a file has no block, or all have the same.
    """
    compiled = _FOLDERS if pattern == FOLDERS else re.compile(pattern)
    block_names = []
    for file in files:
        match = compiled.search(file.as_posix())
        if not match or not match[1]:
            raise DataError(f"{file}: --blocks {pattern} finds no block in its name", hint="mend the name or --blocks")
        block_names.append(match[1])
    if len(set(block_names)) < 2:
        raise DataError(
            f"--blocks {pattern}: all {len(block_names)} pictures are in block {block_names[0]}", hint="two are needed"
        )
    return block_names


def hold_out(blocks: Sequence[str], count: int, generator: np.random.Generator) -> frozenset[str]:
    """Whole blocks, drawn, that hold about `count` pictures together: one at least, and never all."""
    sizes = Counter(blocks)
    drawn = [sorted(sizes)[row] for row in generator.permutation(len(sizes))]
    taken: list[str] = []
    held = 0
    for name in drawn:
        if len(taken) < len(sizes) - 1 and abs(held + sizes[name] - count) < abs(held - count):
            taken.append(name)
            held += sizes[name]
    return frozenset(taken or [min(drawn, key=sizes.__getitem__)])


def joined(blocks: Sequence[str], alike: Sequence[int]) -> list[str]:
    """Blocks that hold pictures of one group become one block; each picture is its own where there are no blocks.

    `alike`: a number for each picture, the same within a group. Returns no blocks where there is nothing to keep
    together, and the blocks as they are where all would become one.
    """
    if len(set(alike)) == len(alike):
        return list(blocks)
    names = list(blocks) or [f"{row:09}" for row in range(len(alike))]
    first: dict[int, str] = {}
    for row, group in enumerate(alike):
        old, new = sorted((names[row], first.get(group, names[row])), reverse=True)
        names = [new if name == old else name for name in names]
        first = {earlier_group: new if name == old else name for earlier_group, name in first.items()} | {group: new}
    return names if len(set(names)) > 1 else list(blocks)
