"""revdist.cli.summary"""

from __future__ import annotations

import dataclasses

import numpy as np

from revdist.cli import summary
from revdist.data.lots import Block
from revdist.evaluation.evaluate import Evaluation
from revdist.evaluation.sensitivity import Probe, Sensitivity
from revdist.thresholds import conformal
from revdist.thresholds.outliers import Excluded, Suspect


def test_a_calibration_tells_its_blocks_exclusions_and_suspects() -> None:
    plain = conformal.calibrate(np.arange(1.0, 100), 0.05, engine="torch-cpu-float32", fingerprint="f")
    assert len(list(summary.calibration(plain, 0.2))) == 1
    made = dataclasses.replace(
        plain,
        blocks=(Block(name="mon", pictures=50, rejected=1), Block(name="tue", pictures=49, rejected=7)),
        excluded=(Excluded(file="bad.png", sha256="0123456789abcdef", score=150.0),),
        suspects=(Suspect(file="odd.png", sha256="s", score=99.0, outlier=True),),
    )
    first, *lines = summary.calibration(made, 0.2)
    assert first == (
        "torch-cpu-float32: threshold 95. Proven with 99 pictures: 5.00 % false rejects on average, "
        "9.01 % with 95 % confidence"
    )
    text = "\n".join(lines)
    assert "  2.00% of    50 rejected  mon\n     14.29% of    49 rejected  tue" in text
    assert "1 excluded by hand:\n      3.00 x median  0123456789ab  bad.png" in text
    assert "  1.98 x median  p 0.0101  OUTLIER  odd.png" in text


def test_an_evaluation_counts_what_was_missed() -> None:
    measured = Evaluation(
        image_auroc=0.9, pixel_auroc=None, pro=None, pro_per_image=None, false_reject_rate=3 / 288,
        escape_rate=65 / 119, threshold=0.5, images_per_second=10, good=288, defective=119,
        escape_rate_by_kind={"crack": 0.75}, engine="torch-cpu-float32",
    )  # fmt: skip
    lines = list(summary.evaluation(measured))
    assert lines[4].split(maxsplit=2) == ["false", "rejects", "3 of 288 (1.04%)"]
    assert lines[5].split(maxsplit=2) == ["missed", "defects", "65 of 119 (54.62%)"]
    assert lines[6].split(maxsplit=1) == ["crack", "75.00% of them missed"]


def test_scores_of_zero_have_no_multiples() -> None:
    made = dataclasses.replace(
        conformal.calibrate(np.zeros(9), 0.1, engine="e", fingerprint="f"),
        suspects=(Suspect(file="odd.png", sha256="s", score=0.0, outlier=False),),
    )
    assert "     - x median  p 1.0000           odd.png" in list(summary.calibration(made, 0.2))[-1]


def test_a_sensitivity_is_a_table_for_each_kind_marked_as_synthetic() -> None:
    probes = [
        Probe(kind=kind, size_px=size, contrast=0.3, pictures=10, detected=hits)
        for kind, row in (("spot", (0, 10)), ("blur", (0, 1)))
        for size, hits in zip((4.0, 8.0), row, strict=True)
    ]
    made = Sensitivity(probes=tuple(probes), threshold=2, pictures=10, clean_rejected=1, size=(64, 64), seed=0)
    lines = list(summary.sensitivity(made))
    assert lines[0] == "SYNTHETIC defects on 10 good pictures at threshold 2: a probe, no measure of real defects"
    assert lines[1] == "1 of the 10 are rejected with nothing painted"
    spot, blur = (line.split() for line in (lines[3], lines[5]))
    assert spot == ["0.3", "0%", "(0%-28%)", "100%", "(72%-100%)", "8", "px"]
    assert blur == ["0.3", "0%", "(0%-28%)", "10%", "(2%-40%)", "none"]
