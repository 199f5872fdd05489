"""Report the progress of a training run."""

from __future__ import annotations

import logging
import sys
import time

from tqdm import tqdm

log = logging.getLogger("revdist")

LOG_EVERY_S = 15.0  # where there is no terminal for a progress bar


class Progress:
    """Shows a bar with loss, images/s and time left on a terminal; elsewhere logs a line every LOG_EVERY_S seconds."""

    def __init__(self, *, steps: int, batch: int, done: int) -> None:
        self._steps, self._batch, self._done, self._first = steps, batch, done, done
        self._begun_s = self._logged_s = time.monotonic()
        self._bar = tqdm(total=steps, initial=done, unit="step", disable=not sys.stderr.isatty(), desc="train")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.close()

    def advance(self, value: float, steps: int = 1) -> None:
        """Show that a step was made, with its loss; `steps`: of the schedule, by which the run is further."""
        self._done += steps
        now = time.monotonic()
        per_s = (self._done - self._first) / max(now - self._begun_s, 1e-9)
        text = f"loss {value:.4f}, {per_s * self._batch:.0f} images/s"
        self._bar.set_postfix_str(text, refresh=False)
        self._bar.update(steps)
        if self._bar.disable and (now - self._logged_s > LOG_EVERY_S or self._done == self._steps):
            left_s = (self._steps - self._done) / per_s
            log.info("step %d/%d, %s, %.0f s left", self._done, self._steps, text, left_s)
            self._logged_s = now
