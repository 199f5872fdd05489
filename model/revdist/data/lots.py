"""Blocks: pictures that belong together, such as those of a lot or a day, by their paths.

Pictures of one lot resemble one another more than those of the next lot. A threshold from pictures of lots that were
trained with promises too much for future lots, so whole blocks are held out.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np

from revdist.errors import DataError

FOLDERS = "folders"  # the pattern that makes each folder a block
_FOLDERS = re.compile(r"([^/]+)/")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """The rejects among one block's held-out pictures at a threshold from the other blocks alone."""

    name: str
    pictures: int
    rejected: int


def usable(pattern: str) -> bool:
    """Whether a pattern can be used: empty for no blocks, `folders`, or a regular expression with one group."""
    try:
        return pattern in ("", FOLDERS) or re.compile(pattern).groups == 1
    except re.error:
        return False


def names(pattern: str, files: Sequence[PurePath]) -> list[str]:
    """Return the block of each file: the match of the pattern's group in its path, relative to the data's folder.

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
    """Draw whole blocks that hold about `count` pictures together: at least one block, and never all."""
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
    """Join blocks that hold pictures of one group. Without blocks, each picture is a block of its own.

    `alike`: a number for each picture, the same within a group. Returns the blocks unchanged (empty without blocks) if
    no group has two pictures, or if all blocks would become one.
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
