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


def test_every_region_of_a_picture_is_a_part_with_a_verdict_and_an_account_of_its_own(
    line: Line, subscriber: Subscriber, cells: list[Path], tmp_path: Path
) -> None:
    good, noise = cv2.imread(str(cells[30])), np.random.default_rng(1).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    folder = tmp_path / "pairs"
    folder.mkdir()
    for number in range(1, 7):  # the left part is good in each, the right one noise in every second
        cv2.imwrite(str(folder / f"part{number:03}.png"), np.hstack([good, noise if number % 2 else good]))
    line.settings["cameras"]["left"] = {
        "type": "folder", "product": "cell", "path": str(folder), "rate_hz": 10, "trigger": "name",
        "region": [0, 0, 300, 300], "deadline_ms": 20_000,
    }  # fmt: skip
    line.settings["cameras"]["right"] = {
        "type": "region", "of": "left", "product": "cell", "region": [300, 0, 300, 300], "trigger_offset": -2,
        "deadline_ms": 15_000,
    }  # fmt: skip
    line.settings["products"]["cell"]["threshold"] = None
    line.start("--until-ended")
    assert line.wait() == 0
    verdicts = sorted(subscriber.of("verdict").values(), key=lambda verdict: verdict["seq"])
    by_camera = {name: [one for one in verdicts if one["camera"] == name] for name in ("left", "right")}
    assert [len(found) for found in by_camera.values()] == [6, 6]
    assert len({verdict["decision"] for verdict in by_camera["left"]}) == 1, "equal pictures"
    assert [one["decision"] for one in by_camera["right"]][::2] == ["reject"] * 3
    assert by_camera["right"][1]["score"] == pytest.approx(by_camera["left"][1]["score"], rel=1e-4)
    assert [verdict["trigger"] for verdict in by_camera["left"]] == [1, 2, 3, 4, 5, 6]
    assert [verdict["trigger"] for verdict in by_camera["right"]] == [0, 0, 1, 2, 3, 4], "0: not known"
    status = subscriber.status()
    assert status["captured"] == 12 == status["pass"] + status["reject"] + status["unjudged"]
