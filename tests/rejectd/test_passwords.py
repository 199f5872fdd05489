"""rejectd.passwords: files as people and editors leave them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rejectd.passwords import PasswordError, read_password

SECRET = "geheim-ß1"


@pytest.mark.parametrize(
    "content",
    [
        SECRET.encode(),
        SECRET.encode() + b"\n",
        SECRET.encode() + b"\r\n",
        b"\xef\xbb\xbf" + SECRET.encode() + b"\r\n",
    ],
)
def test_a_password_is_read_without_the_end_of_its_line_and_without_a_byte_order_mark(
    content: bytes, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(content)
    assert read_password(file) == SECRET


def test_spaces_belong_to_a_password(tmp_path: Path) -> None:
    (tmp_path / "password").write_text(" two words \n")
    assert read_password(tmp_path / "password") == " two words "


@pytest.mark.parametrize(
    ("encoding", "words"),
    [
        ("cp1252", "is not UTF-8 text, but probably CP1252 or Latin-1 (line 1); save it as UTF-8, such as with `iconv"),
        ("utf-16", "is not UTF-8 text, but UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-16-be", "UTF-16"),
    ],
)
def test_another_encoding_is_named_with_the_command_that_mends_it_and_never_the_password(
    encoding: str, words: str, tmp_path: Path
) -> None:
    file = tmp_path / "password"
    file.write_bytes(SECRET.encode(encoding))
    with pytest.raises(PasswordError) as refused:
        read_password(file)
    assert str(refused.value).startswith(f"{file}: cannot be read: ")
    assert words in str(refused.value)
    assert "iconv -f" in str(refused.value)
    assert "geheim" not in str(refused.value)
    assert refused.value.__suppress_context__, "a traceback would show its bytes"


def test_what_is_no_file_or_far_too_long_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero")):
        with pytest.raises(PasswordError, match=r"not a file"):
            read_password(path)
    (tmp_path / "long").write_bytes(b"x" * 70_000)
    with pytest.raises(PasswordError, match="has more than 65535 bytes"):
        read_password(tmp_path / "long")


@pytest.mark.parametrize("closed", ["folder", "file"])
def test_a_file_that_may_not_be_read_is_named_with_what_to_do(closed: str, tmp_path: Path) -> None:
    folder = tmp_path / "closed"
    folder.mkdir()
    file = folder / "password"
    file.write_text(SECRET)
    (folder if closed == "folder" else file).chmod(0)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        with pytest.raises(PasswordError, match=r"Permission denied: .*; let user \w+ (enter|read)"):
            read_password(file)
    finally:
        if root:
            os.seteuid(0)
        folder.chmod(0o700)
