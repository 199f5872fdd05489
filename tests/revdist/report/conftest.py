"""The figures and the page of one report, which the tests of the report share."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from report_pages import GRID, MADE, NASTY

from revdist.bundle import bundle
from revdist.bundle.bundle import Bundle
from revdist.engines.engine import Engine
from revdist.report import page
from revdist.report.gather import Figures, ReportRequest, gather


@pytest.fixture(scope="package")
def held(tiny: Bundle, engine: Engine) -> Iterator[Engine]:
    bundle.load(tiny.path, engine)
    yield engine
    engine.remove(tiny.product)


@pytest.fixture(scope="package")
def data(tmp_path_factory: pytest.TempPathFactory, good_cells: list[Path], broken_cells: list[Path]) -> Path:
    """Unseen cells in the MVTec layout with masks; one kind has a name to trip over."""
    root = tmp_path_factory.mktemp("data")
    mask = np.zeros((300, 300), np.uint8)
    mask[100:160, 40:200] = 255
    for kind, cells in (("good", good_cells[100:107]), ("crack", broken_cells[:4]), (NASTY, broken_cells[4:7])):
        (root / "test" / kind).mkdir(parents=True)
        (root / "ground_truth" / kind).mkdir(parents=True)
        for path in cells:
            shutil.copy(path, root / "test" / kind)
            if kind != "good":
                Image.fromarray(mask).save(root / "ground_truth" / kind / f"{path.stem}_mask.png")
    return root


@pytest.fixture(scope="package")
def figures(tiny: Bundle, held: Engine, data: Path) -> Figures:
    return gather(tiny, held, ReportRequest(data=data, grid=GRID), MADE)


@pytest.fixture(scope="package")
def written(figures: Figures, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    page.write(path, figures)
    return path
