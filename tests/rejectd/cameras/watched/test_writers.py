"""Programs that put files into a watched folder in every way that was seen in plants, several at once."""

from __future__ import annotations

import os
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from rejectd.cameras import driver
from rejectd.cameras.watched.watch import Watch
from rejectd.contract.messages import Exposure
from rejectd.contract.settings import FolderCamera, FolderMode

Writer = Callable[[Path, Path], None]
_SETTLE_MS = 300


def in_place(source: Path, target: Path) -> None:
    target.write_bytes(source.read_bytes())


def in_small_pieces(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with target.open("wb", buffering=0) as file:
        for at in range(0, len(data), 997):
            file.write(data[at : at + 997])
            time.sleep(0.001)


def by_rename(source: Path, target: Path) -> None:
    shutil.copy(source, target.with_suffix(".tmp"))
    target.with_suffix(".tmp").rename(target)


def by_rename_of_a_picture(source: Path, target: Path) -> None:
    shutil.copy(source, target.with_name(f"tmp-{target.name}"))
    target.with_name(f"tmp-{target.name}").rename(target)


def by_link(source: Path, target: Path) -> None:
    shutil.copy(source, target.with_suffix(".tmp"))
    os.link(target.with_suffix(".tmp"), target)
    target.with_suffix(".tmp").unlink()


def with_its_times(source: Path, target: Path) -> None:
    shutil.copy2(source, target)
    os.utime(target, (1e9, 1e9))
    target.open("ab").close()


def empty_at_first(source: Path, target: Path) -> None:
    target.touch()
    time.sleep(0.05)
    in_place(source, target)


def at_full_size_from_the_start(source: Path, target: Path) -> None:
    data = source.read_bytes()
    with target.open("wb", buffering=0) as file:
        os.posix_fallocate(file.fileno(), 0, len(data))
        time.sleep(0.02)
        file.write(data)


def resumed(source: Path, target: Path) -> None:
    data = source.read_bytes()
    target.write_bytes(data[: len(data) // 2])
    with target.open("ab") as file:
        file.write(data[len(data) // 2 :])


def edited(source: Path, target: Path) -> None:
    in_place(source, target)
    shutil.copy(source, target.with_suffix(".jpg_edited"))
    target.rename(target.with_suffix(".jpg_original"))
    target.with_suffix(".jpg_edited").rename(target)


WRITERS: tuple[Writer, ...] = (
    in_place,
    in_small_pieces,
    by_rename,
    by_rename_of_a_picture,
    by_link,
    with_its_times,
    empty_at_first,
    at_full_size_from_the_start,
    resumed,
    edited,
)


def test_each_file_is_one_part_whole_and_none_is_younger_than_it_is(tmp_path: Path) -> None:
    source, folder, count = tmp_path / "source.jpg", tmp_path / "hot", 30
    noise = np.random.default_rng(1).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(source, quality=95)
    folder.mkdir()
    complete_ns: dict[str, int] = {}
    chance = random.Random(1)
    order = [[writer] * count for writer in WRITERS]
    work = [writer for writers in order for writer in writers]
    chance.shuffle(work)

    def write(offset: int) -> None:
        for number in range(offset, len(work), 3):
            target = folder / f"{number:04}.jpg"
            work[number](source, target)
            complete_ns[target.name] = time.monotonic_ns()

    camera = driver(
        FolderCamera(product="cell", path=folder, mode=FolderMode.WATCH, settle_ms=_SETTLE_MS, retry_max_s=0.5)
    )
    assert isinstance(camera, Watch)
    camera.open()
    writers = [threading.Thread(target=write, args=(offset,)) for offset in range(3)]
    exposures: list[Exposure] = []
    try:
        for writer in writers:
            writer.start()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 3:
            exposure = camera.read(0.1)
            if isinstance(exposure, Exposure):
                exposures.append(exposure)
                quiet_since = time.monotonic()
        broken = []
        for exposure in exposures:
            try:
                assert exposure.load(5.0).shape == (48, 64, 3)
            except Exception as error:
                broken.append(str(error))
    finally:
        for writer in writers:
            writer.join()
        camera.close()
    names = Counter(exposure.source.removeprefix("tmp-") for exposure in exposures)
    wrong = {name: (number, work[int(name[:4])].__name__) for name, number in names.items() if number != 1}
    assert not wrong
    assert not broken
    assert len(names) == len(work)
    for exposure in exposures:
        assert exposure.captured_ns <= complete_ns[exposure.source.removeprefix("tmp-")]
