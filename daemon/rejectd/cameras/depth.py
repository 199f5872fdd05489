"""Finds 16-bit pictures whose values must have fewer bits than is stated.

Industrial cameras write 10, 12 or 14 bits into 16-bit files. Taken over all 16 bits, such pictures are nearly black,
and a verdict about them says nothing about the part.
"""

from __future__ import annotations

import numpy as np

from revdist.data import pictures


class Depth:
    """The depth of the pictures of one camera. Safe for several threads.

    Without stated bits a 16-bit picture is refused until one value, of this picture or of one before, shows that the
    values are more than narrow. So a camera that gives 16 bits may show a dark part.
    """

    def __init__(self) -> None:
        self._wide = False

    def check(self, stored: pictures.Values, bits: int) -> None:
        """Check the values of a file, of which `bits` count (0: not stated). Raises ImageError."""
        if stored.dtype != np.uint16 or bits:
            return
        highest = int(stored.max())
        self._wide = self._wide or highest >= 1 << pictures.NARROW
        if not self._wide:
            narrow_bits = pictures.usual_bits(highest)
            raise pictures.ImageError(
                f"no 16-bit value is over {highest}, nor over {(1 << pictures.NARROW) - 1} in a picture before: it "
                f"looks like {narrow_bits}-bit data, and would be judged nearly black",
                hint=f"set `bits: {narrow_bits}` of the camera, as in training (or `bits: 16` if it is that dark)",
            )
