"""rejectd.storage.picture_budget: how many bytes of pictures there are, whoever has them."""

from __future__ import annotations

import gc
import threading

import numpy as np

from rejectd.contract.messages import Pixels
from rejectd.storage.picture_budget import EVIDENCE, MAP, VIEW, Memory


def a_picture(rows: int = 100) -> Pixels:
    return np.zeros((rows, 100, 3), np.uint8)


def test_a_picture_counts_as_long_as_anybody_has_it() -> None:
    memory = Memory(10**6)
    picture = a_picture()
    held = {"view": picture, "record": picture}
    memory.count(picture)
    memory.count(picture)
    assert memory.held_bytes == 30_000, "once, however many have it"
    del picture, held["view"]
    assert memory.held_bytes == 30_000
    held.clear()
    assert memory.held_bytes == 0


def test_a_part_of_a_picture_counts_as_the_whole_that_it_keeps_in_memory() -> None:
    memory = Memory(10**6)
    picture = a_picture()
    region = picture[10:20, 10:20]
    memory.count(region)
    del picture
    assert memory.held_bytes == 30_000
    del region
    assert memory.held_bytes == 0


def test_views_are_given_up_before_maps_and_maps_before_evidence() -> None:
    memory = Memory(60_000)
    pictures = []
    rooms = []
    for _ in range(4):
        pictures.append(a_picture(50))
        memory.count(pictures[-1])
        rooms.append([memory.has_room(share) for share in (VIEW, MAP, EVIDENCE)])
    pictures.append(a_picture(50))
    memory.count(pictures[-1])
    rooms.append([memory.has_room(share) for share in (VIEW, MAP, EVIDENCE)])
    assert rooms == [[True] * 3, [True] * 3, [False, True, True], [False, False, True], [False] * 3]


def test_pictures_come_and_go_in_many_threads_and_nothing_is_left() -> None:
    memory = Memory(10**9)

    def work() -> None:
        for _ in range(500):
            picture = a_picture(10)
            memory.count(picture)
            assert memory.held_bytes >= 3000
            cycle: list[object] = [picture]
            cycle.append(cycle)  # which only the garbage collector ends

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    gc.collect()
    assert memory.held_bytes == 0
