"""rejectd.mqtt.send_queue: what waits for the broker, and in which order it goes out."""

from __future__ import annotations

from rejectd.mqtt.exchange import Message
from rejectd.mqtt.send_queue import Waiting


def waiting() -> Waiting:
    return Waiting(lambda _: None)


def said(queue: Waiting) -> list[bytes]:
    """Everything that goes out now, in order."""
    return [message.payload for message in iter(queue.next_other, None)]


def state(payload: bytes, camera: str = "left") -> Message:
    return Message(topic="t", payload=payload, retain=True, camera=camera, down=payload.startswith(b"down"))


def test_a_camera_that_was_down_and_is_up_again_says_both_in_their_order() -> None:
    queue = waiting()
    for payload in (b"up", b"down", b"up again"):
        queue.add_camera("left", state(payload))
    assert said(queue) == [b"down", b"up again"]
    assert said(queue) == []


def test_of_all_other_states_of_a_camera_the_latest_counts() -> None:
    queue = waiting()
    for payload in (b"down", b"down 2", b"degraded", b"up"):
        queue.add_camera("left", state(payload))
    queue.add_camera("right", state(b"up", "right"))
    assert sorted(said(queue)) == [b"down 2", b"up", b"up"]


def test_a_down_whose_acknowledgement_was_lost_goes_out_again_before_what_came_since() -> None:
    queue = waiting()
    queue.add_camera("left", state(b"down"))
    down = queue.next_other()
    assert down is not None
    queue.add_camera("left", state(b"up"))
    up = queue.next_other()
    assert up is not None
    queue.put_back(up)
    queue.put_back(down)
    queue.say_cameras_again()
    assert said(queue) == [b"down", b"up"]


def test_a_camera_that_is_still_down_says_so_once() -> None:
    queue = waiting()
    queue.add_camera("left", state(b"down"))
    assert said(queue) == [b"down"]
    assert said(queue) == []
    queue.say_cameras_again()
    assert said(queue) == [b"down"]
