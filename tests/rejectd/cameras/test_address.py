"""Addresses and their secrets."""

from __future__ import annotations

import pytest

from rejectd.cameras.address import is_stream, shown, with_login


@pytest.mark.parametrize("url", ["cell.mp4", "/var/lib/cell.mp4", "file:///cell.mp4"])
def test_files_are_no_streams_and_take_no_login(url):
    assert not is_stream(url)
    assert with_login(url, "user", "secret") == url


def test_user_and_password_are_quoted_into_the_address():
    assert with_login("rtsp://cam:554/a?b=c", "line 1", "p@ss:w/rd") == "rtsp://line%201:p%40ss%3Aw%2Frd@cam:554/a?b=c"
    assert with_login("rtsp://old:login@cam/a", "new", None) == "rtsp://new@cam/a"
    assert with_login("rtsp://cam/a", None, "secret") == "rtsp://cam/a"


def test_what_people_see_holds_no_secret():
    assert shown("rtsp://user:secret@[2001:db8::1]:554/a?token=secret") == "rtsp://[2001:db8::1]:554/a"
    assert shown("/var/lib/cell.mp4") == "/var/lib/cell.mp4"
