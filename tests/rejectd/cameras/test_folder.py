"""A replay of a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from rejectd.cameras import CameraError, driver
from rejectd.cameras.folder import natural
from rejectd.contract.messages import CameraState
from rejectd.contract.settings import FolderCamera, FolderMode, Numbering


def fill(folder: Path, count: int) -> Path:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        Image.fromarray(np.full((24, 32, 3), number, np.uint8)).save(folder / f"cell{number}.png")
    return folder


def replay(path: Path, **settings: object) -> FolderCamera:
    return FolderCamera(product="cell", path=path, **{"retry_max_s": 0.5, **settings})


def test_pictures_come_once_in_natural_order_of_their_names(capture, tmp_path):
    taken = capture(replay(fill(tmp_path, 12), rate_hz=500))
    taken.join()
    assert taken.sources == [f"cell{number}.png" for number in range(12)]
    assert [picture.pixels[0, 0, 0] for picture in taken.pictures] == list(range(12))
    assert [state for state, _ in taken.states] == [CameraState.UP, CameraState.ENDED]


def test_numbers_in_names_count_as_numbers():
    assert sorted(["b1", "a10", "a9", "1a", "a9b", "A2"], key=natural) == ["1a", "A2", "a9", "a9b", "a10", "b1"]


def test_the_rate_is_kept_without_drift(capture, tmp_path):
    taken = capture(replay(fill(tmp_path, 101), rate_hz=50))
    taken.join()
    captured_s = np.array([picture.captured_ns for picture in taken.pictures]) / 1e9
    assert captured_s[-1] - captured_s[0] == pytest.approx(2.0, abs=0.02)  # of 100 periods none adds up
    assert np.median(np.diff(captured_s)) == pytest.approx(0.02, abs=0.002)


def test_the_exposure_is_the_hand_over(capture, tmp_path):
    taken = capture(replay(fill(tmp_path, 20), rate_hz=50))
    taken.join()
    waits_ms = (np.array(taken.taken_ns) - [picture.captured_ns for picture in taken.pictures]) / 1e6
    assert np.median(waits_ms) < 5


def test_a_loop_starts_again_and_sees_what_changed(capture, tmp_path):
    taken = capture(replay(fill(tmp_path, 3), rate_hz=100, loop=True))
    taken.wait(lambda taken: len(taken.pictures) >= 7)
    (tmp_path / "cell1.png").unlink()
    taken.wait(lambda taken: taken.sources[-2:] == ["cell0.png", "cell2.png"])
    assert taken.sources[:7] == [f"cell{number % 3}.png" for number in range(7)]


def test_broken_and_empty_files_are_faulty_pictures_with_their_names(capture, tmp_path):
    fill(tmp_path, 4)
    (tmp_path / "cell1.png").write_bytes((tmp_path / "cell1.png").read_bytes()[:60])
    (tmp_path / "cell2.png").write_bytes(b"")
    taken = capture(replay(tmp_path, rate_hz=200))
    taken.join()
    assert [bool(picture.fault) for picture in taken.pictures] == [False, True, True, False]
    assert taken.pictures[1].fault.startswith("cell1.png: the PNG is cut off")
    assert taken.pictures[2].fault == "cell2.png: the file is empty"
    assert [picture.pixels is None for picture in taken.pictures] == [False, True, True, False]


def test_16_bit_and_transparent_pictures_are_shown_as_rgb(capture, tmp_path):
    Image.fromarray(np.full((24, 32), 257 * 80, np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((24, 32, 4), (255, 0, 9, 40), np.uint8)).save(tmp_path / "b.png")
    taken = capture(replay(tmp_path, rate_hz=200))
    taken.join()
    assert [picture.pixels[3, 4].tolist() for picture in taken.pictures] == [[80, 80, 80], [255, 0, 9]]


def test_a_region_outside_of_the_picture_is_named(capture, tmp_path):
    taken = capture(replay(fill(tmp_path, 2), rate_hz=200, region=(20, 0, 20, 10)))
    taken.join()
    fault = "the region [20, 0, 20, 10] exceeds the picture of 32 x 24 pixels"
    assert [picture.fault for picture in taken.pictures] == [fault, fault]
    assert taken.states[0] == (CameraState.DEGRADED, fault)


def test_a_folder_that_goes_away_is_down_until_it_is_back(capture, tmp_path):
    folder = fill(tmp_path / "cells", 5)
    taken = capture(replay(folder, rate_hz=50, loop=True))
    taken.wait_for_more(3)
    shutil.rmtree(folder)
    taken.wait_for_state(CameraState.DOWN)
    fill(folder, 5)
    taken.wait_for_state(CameraState.UP)


@pytest.mark.parametrize(
    ("name", "cause"), [("absent", "cannot be listed: No such file"), ("", "no picture to replay")]
)
def test_a_folder_without_pictures_is_an_error(name, cause, tmp_path):
    with pytest.raises(CameraError, match=cause):
        driver(replay(tmp_path / name)).open()


# trigger numbers from names


def named(path: Path, *names: str) -> Path:
    path.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(np.zeros((24, 32, 3), np.uint8)).save(path / name)
    return path


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("left_000123.png", 123),
        ("7.png", 7),
        ("line2-part0042.png", 42),
        ("12-left.png", 12),
        ("shot.5.png", 5),
        ("part 9 (2).png", 2),
        ("0.png", 0),
        ("a00000000000000000000000000007.png", 7),
        ("left_1700000000123456789.png", 1700000000123456789),
        ("1_9223372036854775807.png", 2**63 - 1),
    ],
)
def test_the_trigger_number_is_the_last_number_of_the_name(capture, tmp_path, name, number):
    taken = capture(replay(named(tmp_path / "cells", name), rate_hz=200, trigger=Numbering.NAME))
    taken.join()
    (exposure,) = taken.entered
    assert (exposure.trigger, exposure.fault) == (number, "")
    assert taken.pictures[0].pixels is not None


@pytest.mark.parametrize("name", ["left.png", "9223372036854775808.png", "p99999999999999999999999.png"])
def test_a_name_without_a_number_that_can_be_used_is_a_fault_for_nobody_knows_which_part_it_shows(
    capture, tmp_path, name
):
    taken = capture(replay(named(tmp_path / "cells", name, "8.png"), rate_hz=200, trigger=Numbering.NAME))
    taken.join()
    pictures = {picture.source: picture for picture in taken.pictures}
    assert pictures[name].fault.startswith(f"{name}: ")
    assert pictures[name].pixels is None
    assert (taken.entered[0].trigger, pictures["8.png"].fault) == (8, "")


def test_a_broken_file_keeps_its_number_and_its_own_fault(capture, tmp_path):
    folder = named(tmp_path / "cells", "left_5.png")
    (folder / "left_6.png").write_bytes(b"")
    (folder / "nothing.png").write_bytes(b"")
    taken = capture(replay(folder, rate_hz=200, trigger=Numbering.NAME))
    taken.join()
    found = {exposure.source: (exposure.trigger, exposure.fault) for exposure in taken.entered}
    assert found == {
        "left_5.png": (5, ""),
        "left_6.png": (6, "left_6.png: the file is empty"),
        "nothing.png": (None, "nothing.png: the file is empty"),
    }


def test_a_replay_that_is_not_numbered_by_its_names_has_no_trigger_numbers(capture, tmp_path):
    taken = capture(replay(named(tmp_path / "cells", "left_5.png"), rate_hz=200))
    taken.join()
    assert taken.entered[0].trigger is None


def test_a_watched_folder_takes_its_trigger_numbers_from_the_names_too(capture, tmp_path):
    folder = named(tmp_path / "cells")
    taken = capture(replay(folder, mode=FolderMode.WATCH, trigger=Numbering.NAME))
    taken.wait_for_state(CameraState.UP)
    for name in ("left_17.png", "left_18.png"):
        staged = named(tmp_path / "staged", name) / name
        staged.rename(folder / name)
    taken.wait(lambda taken: len(taken.pictures) == 2)
    assert [exposure.trigger for exposure in taken.entered] == [17, 18]
