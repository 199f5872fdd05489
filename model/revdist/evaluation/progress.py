"""Shows how far an inspection of many pictures is: a bar on a terminal, nothing in a log or a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from tqdm import tqdm


@contextmanager
def bar(task: str, pictures: int, *, quiet: bool = False) -> Iterator[tqdm[NoReturn]]:
    """Show a bar to `update` by pictures, which vanishes at the end. `quiet`: the printed lines show progress."""
    hidden = quiet or sys.stderr is None or not sys.stderr.isatty()
    shown = tqdm(total=pictures, desc=task, unit="picture", leave=False, disable=hidden)
    with shown:
        yield shown
