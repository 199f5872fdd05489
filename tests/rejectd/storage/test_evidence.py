"""rejectd.storage.evidence: pictures of what did not pass, under a quota. Real files, a really full disk."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from rejectd.contract.messages import AnomalyMap, Frame, Picture, Pixels, Policy, Result
from rejectd.storage.evidence import Evidence, EvidenceError, regions, thumbnail

DAY_NS = 86_400 * 10**9
NOON = 1_700_000_000 * 10**9  # 2023-11-14
MANY = 10**12


def a_picture(seed: int, shape: tuple[int, int] = (40, 60)) -> Pixels:
    """Noise, so that its size on disk is known: about its size in memory."""
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), np.uint8)


def a_frame(seq: int, picture: Pixels | None, captured_unix_ns: int = NOON) -> Frame:
    return Frame(
        event_id=f"20231114T221320-abcdef-left-{seq}",
        camera="left",
        product="cell",
        seq=seq,
        captured_ns=0,
        captured_unix_ns=captured_unix_ns,
        deadline_ns=1,
        policy=Policy.REJECT,
        source="",
        pixels=None,
        picture=picture,
    )


def a_result(anomaly_map: AnomalyMap | None) -> Result:
    return Result(score=2.0, threshold=1.0, p_value=0.0, bundle="b", engine="e", anomaly_map=anomaly_map)


def paint(picture: Pixels, anomaly_map: AnomalyMap, threshold: float) -> Pixels:
    """A heat map: red where the map exceeds the threshold."""
    painted = picture.copy()
    large = cv2.resize(anomaly_map, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    painted[large > threshold] = (255, 0, 0)
    return painted


@pytest.fixture
def evidence(tmp_path: Path) -> Callable[[int], Evidence]:
    return lambda quota_bytes=MANY: Evidence(tmp_path / "evidence", quota_bytes=quota_bytes, heatmap=paint)


def kept(directory: Path) -> list[str]:
    return sorted(str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file())


def read(path: Path) -> Pixels:
    found = cv2.imread(str(path))
    assert found is not None
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def test_a_reject_is_kept_as_captured_with_its_heat_map(evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    picture = np.zeros((40, 60, 3), np.uint8)
    picture[:, :, 2] = 200  # blue
    picture.flags.writeable = False
    anomaly_map = np.zeros((8, 8), np.float32)
    anomaly_map[4:, 4:] = 2
    name = evidence().keep(a_frame(7, picture), a_result(anomaly_map))
    day = tmp_path / "evidence" / "2023-11-14"
    assert name == "2023-11-14/20231114T221320-abcdef-left-7.png"
    assert kept(day) == ["20231114T221320-abcdef-left-7-heat.jpg", "20231114T221320-abcdef-left-7.png"]
    assert np.array_equal(read(tmp_path / "evidence" / name), picture), "without loss, red and blue not swapped"
    heat = read(day / "20231114T221320-abcdef-left-7-heat.jpg").astype(int)
    assert heat.shape == picture.shape
    assert heat[35, 50, 0] > 200 > 60 > heat[35, 50, 2], "red where the defect is"
    assert heat[5, 5, 2] > 150 > 60 > heat[5, 5, 0], "blue elsewhere"


def test_an_unjudged_part_is_kept_without_heat_map_and_a_faulty_picture_not_at_all(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    keeper = evidence()
    assert keeper.keep(a_frame(1, a_picture(1)), None).endswith("-1.png")
    assert keeper.keep(a_frame(2, a_picture(2)), a_result(None)).endswith("-2.png")
    assert keeper.keep(a_frame(3, None), None) == ""
    assert len(kept(tmp_path / "evidence")) == 2


def test_each_day_has_its_folder_by_universal_time(evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    keeper = evidence()
    midnight = NOON // DAY_NS * DAY_NS
    names = [keeper.keep(a_frame(n, a_picture(n), at), None) for n, at in ((1, midnight - 1000), (2, midnight))]
    assert [name.split("/")[0] for name in names] == ["2023-11-13", "2023-11-14"]


def test_the_oldest_goes_when_the_quota_is_reached_and_empty_days_go_too(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    size = 40 * 60 * 3
    keeper = evidence(quota_bytes=int(size * 4.5))
    for number in range(10):
        keeper.keep(a_frame(number, a_picture(number), NOON + number * DAY_NS // 2), None)
        assert sum(path.stat().st_size for path in (tmp_path / "evidence").rglob("*.png")) <= size * 4.5
    assert [name[-5] for name in kept(tmp_path / "evidence")] == ["6", "7", "8", "9"]
    assert len(list((tmp_path / "evidence").iterdir())) == 3


def test_after_a_restart_the_quota_counts_what_is_there_and_the_oldest_goes_first(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    first = evidence()
    names = [first.keep(a_frame(number, a_picture(number)), None) for number in range(4)]
    for age, name in enumerate(reversed(names)):  # the last one written is the oldest on disk
        os.utime(tmp_path / "evidence" / name, ns=(NOON + age, NOON + age))
    second = evidence(quota_bytes=int(40 * 60 * 3 * 3.5))
    second.keep(a_frame(9, a_picture(9)), None)
    assert [name[-5] for name in kept(tmp_path / "evidence")] == ["0", "1", "9"]


def test_files_of_others_are_never_counted_nor_deleted(evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    foreign = [
        "notes.txt",
        "good parts/1.png",
        "2023-11-14/report.pdf",
        "archive/2020-01-01/x-1.png",
        "2023-11-1/a-1.png",
    ]
    for name in foreign:
        path = tmp_path / "evidence" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(100_000))
    keeper = evidence(quota_bytes=20_000)
    for number in range(6):
        keeper.keep(a_frame(number, a_picture(number)), None)
    assert set(foreign) < set(kept(tmp_path / "evidence"))
    assert sum(name.endswith(".png") and "left" in name for name in kept(tmp_path / "evidence")) == 2


def test_what_was_removed_by_hand_is_no_trouble(evidence: Callable[..., Evidence], tmp_path: Path) -> None:
    keeper = evidence(quota_bytes=20_000)
    for number in range(2):
        (tmp_path / "evidence" / keeper.keep(a_frame(number, a_picture(number)), None)).unlink()
    (tmp_path / "evidence" / "2023-11-14").rmdir()
    for number in range(2, 8):
        keeper.keep(a_frame(number, a_picture(number)), None)
    assert [name[-5] for name in kept(tmp_path / "evidence")] == ["6", "7"]


def test_a_picture_larger_than_the_whole_quota_is_not_promised(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    assert evidence(quota_bytes=1000).keep(a_frame(1, a_picture(1)), None) == ""
    assert kept(tmp_path / "evidence") == []


@pytest.mark.parametrize("shape", [(2, 66_000), (66_000, 2), (1, 1)])
def test_a_picture_longer_than_jpeg_can_hold_is_kept_whole_with_a_heat_map_at_the_size_of_a_screen(
    evidence: Callable[..., Evidence], tmp_path: Path, shape: tuple[int, int]
) -> None:
    name = evidence().keep(a_frame(1, a_picture(1, shape)), a_result(np.full((8, 8), 2, np.float32)))
    assert np.array_equal(read(tmp_path / "evidence" / name), a_picture(1, shape))
    heat = read(tmp_path / "evidence" / name.replace(".png", "-heat.jpg"))
    assert max(heat.shape[:2]) == min(1280, max(shape))


def test_a_heat_map_is_painted_at_the_size_of_a_screen_however_large_the_picture_is(tmp_path: Path) -> None:
    painted: list[tuple[int, ...]] = []

    def heatmap(picture: Pixels, anomaly_map: AnomalyMap, threshold: float) -> Pixels:
        painted.append(picture.shape)
        return paint(picture, anomaly_map, threshold)

    keeper = Evidence(tmp_path / "evidence", quota_bytes=MANY, heatmap=heatmap)
    picture = np.zeros((4000, 6000, 3), np.uint8)
    name = keeper.keep(a_frame(1, picture), a_result(np.full((8, 8), 2, np.float32)))
    assert painted == [(853, 1280, 3)]
    assert read(tmp_path / "evidence" / name).shape == picture.shape, "the picture itself stays as captured"


def _fails(*_: object) -> Pixels:
    raise cv2.error("no memory for a Mat")


def test_a_picture_that_no_format_takes_or_nobody_can_paint_is_an_error_of_the_evidence_alone(tmp_path: Path) -> None:
    keeper = Evidence(tmp_path / "evidence", quota_bytes=MANY, heatmap=_fails)
    with pytest.raises(EvidenceError, match=r"left-1: evidence cannot be painted: .*no memory for a Mat"):
        keeper.keep(a_frame(1, a_picture(1)), a_result(np.ones((4, 4), np.float32)))
    too_long = np.zeros((1, 1_000_001, 3), np.uint8)
    with pytest.raises(EvidenceError, match=r"a picture of 1000001 x 1 pixels cannot be encoded"):
        keeper.keep(a_frame(2, too_long), None)
    assert keeper.keep(a_frame(3, a_picture(3)), None), "the next part's evidence is kept"


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """A disk and what fills it: a small tmpfs, or a limit on the size of files where mounting is not allowed."""
    directory = tmp_path / "disk"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=128k", "rejectd-test", str(directory)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, capture_output=True).returncode == 0
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        if not mounted:
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
            return
        with contextlib.suppress(OSError), (directory / "ballast").open("wb", buffering=0) as file:
            while file.write(bytes(1024)):
                pass

    yield directory, fill
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    if mounted:
        subprocess.run(["umount", str(directory)], check=True)


def test_a_full_disk_is_told_and_leaves_nothing_half_written(full_disk: tuple[Path, Callable[[], None]]) -> None:
    directory, fill = full_disk
    keeper = Evidence(directory / "evidence", quota_bytes=MANY, heatmap=paint)
    whole = keeper.keep(a_frame(1, a_picture(1)), None)
    fill()
    for number in (2, 3):
        with pytest.raises(EvidenceError, match=r"evidence: evidence cannot be written: .*; free disk space"):
            keeper.keep(a_frame(number, a_picture(number)), a_result(np.ones((4, 4), np.float32)))
    assert kept(directory / "evidence") == [whole]
    assert read(directory / "evidence" / whole).shape == (40, 60, 3)


@pytest.mark.parametrize("place", ["", "below"])
def test_a_folder_that_cannot_be_used_is_named(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("a file, not a folder")
    with pytest.raises(EvidenceError, match=r"file.*: evidence cannot be kept: .*; let the service's user write there"):
        Evidence(tmp_path / "file" / place, quota_bytes=1, heatmap=paint).open()


# snapshots


def a_shot(seed: int, captured_unix_ns: int = NOON) -> Picture:
    return Picture(pixels=a_picture(seed), captured_ns=0, captured_unix_ns=captured_unix_ns)


def test_a_snapshot_is_kept_as_captured_beside_the_evidence_of_its_day(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    name = evidence().snapshot("left", a_shot(1, NOON + 7))
    assert name == f"2023-11-14/left-snapshot-{NOON + 7}.png"
    assert np.array_equal(read(tmp_path / "evidence" / name), a_picture(1))


def test_snapshots_and_evidence_share_one_quota_also_after_a_restart(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    keeper = evidence()
    first, second = (keeper.snapshot("left", a_shot(number, NOON + number)) for number in (1, 2))
    for age, name in enumerate((first, second)):
        os.utime(tmp_path / "evidence" / name, ns=(NOON + age, NOON + age))
    keeper = evidence(quota_bytes=int(40 * 60 * 3 * 2.5))
    third = keeper.keep(a_frame(3, a_picture(3)), None)
    assert kept(tmp_path / "evidence") == sorted([second, third])
    fourth = keeper.snapshot("left", a_shot(4, NOON + 4))
    assert kept(tmp_path / "evidence") == sorted([third, fourth])


def test_a_snapshot_larger_than_the_whole_quota_is_not_promised(
    evidence: Callable[..., Evidence], tmp_path: Path
) -> None:
    assert evidence(quota_bytes=1000).snapshot("left", a_shot(1)) == ""
    assert kept(tmp_path / "evidence") == []


def test_a_full_disk_is_told_and_leaves_no_half_snapshot(full_disk: tuple[Path, Callable[[], None]]) -> None:
    directory, fill = full_disk
    keeper = Evidence(directory / "evidence", quota_bytes=MANY, heatmap=paint)
    keeper.open()
    fill()
    with pytest.raises(EvidenceError, match=r"evidence: evidence cannot be written: .*; free disk space"):
        keeper.snapshot("left", a_shot(1))
    assert kept(directory / "evidence") == []


def shown(jpeg: bytes) -> Pixels:
    return np.asarray(cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((480, 640), (480, 640)),
        ((1000, 2000), (320, 640)),
        ((2000, 1000), (640, 320)),
        ((3, 9000), (1, 640)),
        ((1, 1), (1, 1)),
        ((641, 641), (640, 640)),
    ],
)
def test_a_thumbnail_keeps_the_shape_and_is_never_larger_than_the_picture(
    shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    pixels = np.zeros((*shape, 3), np.uint8)
    pixels.flags.writeable = False
    assert shown(thumbnail(pixels)).shape[:2] == expected


def test_a_thumbnail_for_a_broker_that_takes_little_is_as_small_as_that_needs() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (900, 1200, 3), np.uint8)
    for most_bytes in (100_000, 20_000, 3000):
        data = thumbnail(pixels, most_bytes=most_bytes)
        assert most_bytes / 4 < len(data) <= most_bytes
        height, width = shown(data).shape[:2]
        assert abs(height / width - 0.75) < 0.05
    assert thumbnail(pixels, most_bytes=300) == b"", "it would show nothing"


def test_a_thumbnail_shows_the_colours_of_the_picture() -> None:
    pixels = np.zeros((1300, 1300, 3), np.uint8)
    pixels[:, :650, 0] = 200  # red on the left
    pixels[:, 650:, 2] = 200  # blue on the right
    small = shown(thumbnail(pixels)).astype(int)
    assert small[300, 100, 0] > 150 > 60 > small[300, 100, 2]
    assert small[300, 500, 2] > 150 > 60 > small[300, 500, 0]


# regions


def test_a_region_is_a_box_in_pixels_of_the_captured_picture() -> None:
    anomaly_map = np.zeros((4, 8), np.float32)
    anomaly_map[1:3, 2:5] = 2
    assert regions(anomaly_map, 1.0, (4, 8, 3)) == [[2, 1, 3, 2]]
    assert regions(anomaly_map, 1.0, (40, 80, 3)) == [[20, 10, 30, 20]]
    assert regions(anomaly_map, 1.0, (400, 80, 3)) == [[20, 100, 30, 200]], "also where the sides scale differently"
    assert regions(anomaly_map, 1.0, (2, 4, 3)) == [[1, 0, 2, 2]], "rounded outwards"


def test_defects_that_touch_at_a_corner_are_one_and_the_largest_comes_first() -> None:
    anomaly_map = np.zeros((10, 10), np.float32)
    anomaly_map[0, 0] = 9
    anomaly_map[4, 4] = anomaly_map[5, 5] = anomaly_map[6, 6] = 2
    anomaly_map[9, 0:2] = 3
    assert regions(anomaly_map, 1.0, (10, 10, 3)) == [[4, 4, 3, 3], [0, 9, 2, 1], [0, 0, 1, 1]]
    assert regions(anomaly_map, 1.0, (10, 10, 3), most=1) == [[4, 4, 3, 3]]
    assert regions(anomaly_map, 9.0, (10, 10, 3)) == []


@given(
    rows=st.integers(1, 40), columns=st.integers(1, 600), height=st.integers(1, 2500), width=st.integers(1, 2500),
    spots=st.lists(st.tuples(st.integers(0, 39), st.integers(0, 599)), min_size=1, max_size=6),
)  # fmt: skip
@hypothesis_settings(max_examples=200, deadline=None)
def test_boxes_lie_in_the_picture_and_hold_every_defect(
    rows: int, columns: int, height: int, width: int, spots: list[tuple[int, int]]
) -> None:
    anomaly_map = np.zeros((rows, columns), np.float32)
    for y, x in spots:
        anomaly_map[y % rows, x % columns] = 2
    boxes = regions(anomaly_map, 1.0, (height, width, 3))
    for x, y, w, h in boxes:
        assert 0 <= x < x + w <= width
        assert 0 <= y < y + h <= height
    for y, x in np.argwhere(anomaly_map > 1).tolist():
        centre_x, centre_y = (x + 0.5) * width / columns, (y + 0.5) * height / rows
        assert any(bx <= centre_x <= bx + bw and by <= centre_y <= by + bh for bx, by, bw, bh in boxes)


@given(score=st.floats(0, 10, width=32), step=st.integers(1, 3))
def test_a_reject_has_a_region_however_little_its_score_exceeds_the_threshold(score: float, step: int) -> None:
    threshold = score
    for _ in range(step):
        threshold = float(np.nextafter(threshold, -1.0))
    anomaly_map = np.full((3, 3), -1, np.float32)
    anomaly_map[1, 1] = score
    assert float(anomaly_map.max()) > threshold
    assert regions(anomaly_map, threshold, (3, 3, 3)) == [[1, 1, 1, 1]]
