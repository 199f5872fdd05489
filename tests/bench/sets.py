"""Pictures that the benches train with and test, drawn by a seed: what is tested was never trained with.

`magnetic_tile` is a folder in the MVTec layout, elpv comes with the package `elpv-dataset`. Printed circuit boards are
the pairs of `github.com/tangsanli5201/DeepPCB` (binary pictures of 640x640, MIT licence), a product for each of its
three largest groups: the template is the good picture, and no template of a tested pair is trained with.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from revdist.data import images
from revdist.data import masks as mask_files
from revdist.evaluation import evaluate

SETS = ("magnetic_tile", "elpv mono", "elpv poly")
BOARDS = ("pcb 00041", "pcb 13000", "pcb 20085")
TRAINED, HELD_OUT, TESTED = 200, 50, 150  # good pictures to train with and held out; tested of each kind


@dataclass(frozen=True)
class Data:
    """Prepared pictures."""

    good: list[images.Pixels]
    held_out: list[images.Pixels]  # good too, not trained with
    tested: list[images.Pixels]
    defective: npt.NDArray[np.bool_]
    doubtful: list[images.Pixels]  # solar cells with a defect that is likely but not sure, tested apart
    masks: npt.NDArray[np.bool_] | None


def load(name: str, root: Path, sides: images.Size, seed: int) -> Data:
    """Draw pictures of a set. What is tested was never trained with. `root`: where magnetic_tile or the boards lie."""
    rng = np.random.default_rng((seed, 7))
    doubtful: list[Path] = []
    masks: list[npt.NDArray[np.bool_]] = []
    if name == "magnetic_tile":
        samples = images.labelled_pictures(root)
        good = draw(images.good_pictures(root), TRAINED + HELD_OUT, rng)
        tested, defective = [each.path for each in samples], [each.defective for each in samples]
        masks = [mask_files.read(each.mask, sides) if each.mask else np.zeros(sides, bool) for each in samples]
    elif name in BOARDS:
        pairs = sorted((root / f"group{name.removeprefix('pcb ')}").glob("*/*_temp.jpg"))
        drawn = draw(pairs, len(pairs), rng)
        rest, good = drawn[: len(pairs) // 3], drawn[len(pairs) // 3 :]
        good = [*good[HELD_OUT:][:TRAINED], *good[:HELD_OUT]]
        bad = [path.with_name(path.name.replace("_temp", "_test")) for path in rest]
        tested, defective = rest + bad, [False] * len(rest) + [True] * len(bad)
    else:
        all_good, doubtful, bad = cells(name.removeprefix("elpv "))
        drawn = draw(all_good, TRAINED + HELD_OUT + TESTED, rng)
        good, rest, bad = drawn[:-TESTED], drawn[-TESTED:], draw(bad, TESTED, rng)
        doubtful = draw(doubtful, TESTED, rng)
        tested, defective = rest + bad, [False] * len(rest) + [True] * len(bad)
    fitted, held_out = good[:-HELD_OUT], good[-HELD_OUT:]
    return Data(
        evaluate.read_prepared(fitted, sides),
        evaluate.read_prepared(held_out, sides),
        evaluate.read_prepared(tested, sides),
        np.array(defective),
        evaluate.read_prepared(doubtful, sides),
        np.stack(masks) if masks else None,
    )


def cells(kind: str) -> tuple[list[Path], list[Path], list[Path]]:
    """Photographs of solar cells: functional (probability of a defect 0), doubtful (1/3, 2/3), surely defective (1)."""
    found = importlib.util.find_spec("elpv_dataset")
    assert found
    assert found.origin
    data = Path(found.origin).parent / "data"
    rows = [line.split() for line in (data / "labels.csv").read_text().splitlines()]
    good, doubtful, bad = (
        [data / path for path, label, each in rows if each == kind and low <= float(label) <= high]
        for low, high in ((0.0, 0.0), (0.1, 0.9), (1.0, 1.0))
    )
    return good, doubtful, bad


def draw(paths: list[Path], count: int, rng: np.random.Generator) -> list[Path]:
    return [paths[row] for row in rng.permutation(len(paths))[:count]]
