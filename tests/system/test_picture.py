"""What is on a picture, through the whole service: parts whose picture shows nothing are the camera's fault."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from line import Line, Subscriber

pytestmark = pytest.mark.system


def test_spoilt_pictures_are_unjudged_with_the_reason_and_all_others_judged(
    line: Line, subscriber: Subscriber, cells: list[Path], defective_cells: list[Path], tmp_path: Path
) -> None:
    cell = cv2.imread(str(cells[30]))
    spoilt = {
        "black": cell // 50,
        "saturated": np.full_like(cell, 255),
        "defocused": cv2.GaussianBlur(cell, (0, 0), 8.0),
        "low_contrast": np.full_like(cell, 128),
        "wrong_size": cell[:150],
    }
    shown = [*cells[31:34], *defective_cells[:2]]
    for name, pixels in spoilt.items():
        shown.append(tmp_path / f"{name}.png")
        cv2.imwrite(str(shown[-1]), pixels)
    line.folder("left", shown, rate_hz=10, deadline_ms=20_000, image_health=True)
    line.start("--until-ended")
    assert line.wait() == 0
    verdicts = sorted(subscriber.of("verdict").values(), key=lambda verdict: verdict["seq"])
    assert len(verdicts) == 10
    assert all(verdict["decision"] != "unjudged" for verdict in verdicts[:5])
    for name, verdict in zip(spoilt, verdicts[5:], strict=True):
        assert (verdict["decision"], verdict["cause"]) == ("unjudged", "camera_fault")
        assert verdict["detail"].startswith(name.replace("_", " ") + ": ")
    assert "degraded" in subscriber.states("left")
