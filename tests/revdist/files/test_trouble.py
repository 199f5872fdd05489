"""revdist.files.trouble: what a failed operation on a file is told as."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from revdist.errors import BundleError
from revdist.files import trouble

NOBODY = 65534
NO_NAME = "there is a character in its name that no file's name can hold"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may enter, as pytest's own are not."""
    folder = Path(tempfile.mkdtemp(prefix="trouble-"))
    folder.chmod(0o755)
    yield folder
    for inner in (folder, *folder.glob("*/")):
        inner.chmod(0o755)
    shutil.rmtree(folder)


@pytest.fixture
def nobody() -> Iterator[None]:
    """As a user without rights: root would read everything."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def told(path: Path, operation: str = "read") -> BundleError:
    """The error of an attempt to do it."""
    try:
        if operation == "read":
            path.read_bytes()
        elif operation == "listed":
            list(path.iterdir())
        else:
            path.write_bytes(b"")
    except trouble.FILE_ERRORS as error:
        return trouble.error(BundleError, error, path, operation, hint="our own hint")
    raise AssertionError(f"{path} was {operation}")


@pytest.fixture
def closed(open_folder: Path) -> Path:
    """A file two folders below one that nobody else may enter."""
    file = open_folder / "closed" / "inner" / "file"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"")
    (open_folder / "closed").chmod(0)
    return file


def test_a_closed_folder_on_the_way_is_named_and_not_the_file_below_it(closed: Path, nobody: None) -> None:
    error = told(closed)
    assert f"cannot be read: Permission denied: it is below {closed.parents[1]}, which user " in error.message
    assert "enter that folder" in error.hint
    assert trouble.why_not_file(closed).cause == trouble.explain(PermissionError(errno.EACCES, ""), closed).cause
    assert "may not enter" in trouble.why_not_folder(closed.parent).cause
    assert "may not enter" in trouble.why_not_writable(closed.parent / "new").cause


@pytest.fixture
def read_only(open_folder: Path) -> Path:
    """A folder into which nobody may write, with a file and a folder that nobody may read."""
    (open_folder / "file").write_bytes(b"")
    (open_folder / "file").chmod(0)
    (open_folder / "folder").mkdir(0o111)
    open_folder.chmod(0o555)
    return open_folder


def test_a_closed_file_and_folder_are_told_from_what_is_above(read_only: Path, nobody: None) -> None:
    assert "may not read it" in told(read_only / "file").message
    assert "may not write it" in told(read_only / "file", "written").message
    assert f"may not write into {read_only}" in told(read_only / "other", "written").message
    assert "may not list it" in told(read_only / "folder", "listed").message
    assert "may not list it" in trouble.why_not_folder(read_only / "folder").cause
    assert f"may not write into {read_only}" in trouble.why_not_writable(read_only / "a" / "b").cause


def test_the_first_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    assert told(tmp_path / "a" / "b" / "c").message.endswith(f"there is no folder {tmp_path / 'a'}")
    missing = told(tmp_path / "a")
    assert missing.message == f"{tmp_path / 'a'}: cannot be read: No such file or directory"
    assert missing.hint == "our own hint", "the cause has none"


def test_a_file_on_the_way_and_a_link_to_nothing_are_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "link").symlink_to("gone")
    (tmp_path / "circle").symlink_to("circle")
    assert told(tmp_path / "file" / "x").message.endswith(f"{tmp_path / 'file'} is a file")
    assert told(tmp_path / "link").message.endswith(f"{tmp_path / 'link'} is a link to gone, which is not there")
    assert "circle" in told(tmp_path / "circle").message
    for wrong in (trouble.why_not_writable(tmp_path / "file" / "x"), trouble.why_not_folder(tmp_path / "file")):
        assert wrong.cause.startswith("Not a directory")


def test_folders_pipes_and_devices_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    assert told(tmp_path).message.endswith("cannot be read: Is a directory")
    assert trouble.why_not_file(tmp_path).cause == "it is a folder, not a file"
    assert trouble.why_not_file(tmp_path / "pipe").cause == "it is a named pipe, not a file"
    assert trouble.why_not_file(Path("/dev/zero")).cause == "it is a device, not a file"
    (tmp_path / "endless").symlink_to("/dev/zero")
    with pytest.raises(BundleError, match="a device, not a file"):
        trouble.read_text(tmp_path / "endless", BundleError)


def test_a_name_that_is_too_long_or_holds_a_null_byte_is_told(tmp_path: Path) -> None:
    assert "has 300 bytes, and a file system takes 255" in told(tmp_path / ("x" * 300)).message
    assert "has 256 bytes" in told(tmp_path / ("ü" * 128), "written").message
    assert "takes 4095" in told(tmp_path.joinpath(*["x" * 200] * 30)).message
    assert "null byte in its name" in told(tmp_path / "a\0b").message
    for path in (tmp_path / ("x" * 300), tmp_path / "a\0b"):
        assert trouble.why_not_file(path) is not None
        assert trouble.why_not_folder(path) is not None
        assert trouble.why_not_writable(path) is not None


def test_a_name_in_latin_1_is_printed_with_escapes(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"T\xfcr\x1b[2J")
    error = told(path)
    assert "T\\xfcr\\x1b[2J: cannot be read" in error.message
    error.message.encode("utf-8")


def test_half_a_character_in_a_name_is_told_and_printed(tmp_path: Path) -> None:
    path = tmp_path / "x\ud800"
    assert told(path).message == f"{tmp_path}/x\\ud800: cannot be read: {NO_NAME}"
    for wrong in (trouble.why_not_file(path), trouble.why_not_folder(path), trouble.why_not_writable(path)):
        assert wrong.cause == NO_NAME


def test_what_the_system_says_is_told_with_the_place(tmp_path: Path) -> None:
    cases = {
        errno.ENOSPC: " is full",
        errno.EROFS: " can only be read",
        errno.EDQUOT: "quota",
        errno.EIO: "Input/output error: below /",
        errno.ESTALE: "does not answer",
        errno.EMFILE: "Too many open files",
    }
    for number, text in cases.items():
        error = trouble.error(BundleError, OSError(number, os.strerror(number)), tmp_path, "written")
        assert text in error.message
        assert error.hint
    other = trouble.error(BundleError, OSError(errno.EBUSY, "Device or resource busy"), tmp_path, "read", hint="wait")
    assert str(other) == f"{tmp_path}: cannot be read: Device or resource busy; wait"


@pytest.mark.parametrize(
    ("content", "guess", "code"),
    [
        ("geheim-ü".encode("cp1252"), "CP1252 or Latin-1", "CP1252"),
        ("20 € \n".encode("cp1252"), "probably CP1252", "CP1252"),
        ("geheim".encode("utf-16"), "UTF-16", "UTF-16"),
        ("geheim".encode("utf-16-le"), "probably UTF-16", "UTF-16LE"),
        ("geheim".encode("utf-16-be"), "probably UTF-16", "UTF-16BE"),
        ("geheim".encode("utf-32"), "UTF-32", "UTF-32"),
    ],
)
def test_the_encoding_is_guessed_and_the_text_is_not_shown(
    tmp_path: Path, content: bytes, guess: str, code: str
) -> None:
    (tmp_path / "password").write_bytes(b"" + content)
    with pytest.raises(BundleError) as raised:
        trouble.read_text(tmp_path / "password", BundleError)
    assert guess in raised.value.message
    assert f"iconv -f {code} -t UTF-8" in raised.value.hint
    assert "geheim" not in str(raised.value)
    iconv = subprocess.run(["iconv", "-f", code, "-t", "UTF-8", tmp_path / "password"], capture_output=True, check=True)
    assert iconv.stdout.decode("utf-8-sig") == content.decode(
        {"CP1252": "cp1252", "UTF-16": "utf-16", "UTF-32": "utf-32"}.get(code, code.lower())
    )


def test_a_byte_order_mark_of_utf_8_is_no_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes("\ufeffgeheim-ü\n".encode())
    assert trouble.read_text(tmp_path / "text", BundleError) == "geheim-ü\n"


def test_the_line_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"one\ntwo\nT\xfcr\n")
    with pytest.raises(BundleError, match=r"\(line 3\)"):
        trouble.read_text(tmp_path / "text", BundleError)


@pytest.mark.parametrize("content", [b"{", b"[" * 100_000, b"1" * 5000, b"\xff", b"", b"\x00", b"{\x00}\x00"])
def test_what_is_no_json_is_told(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(BundleError, match="cannot be read"):
        trouble.parse_json(content, tmp_path, BundleError)
    assert trouble.parse_json(b'\xef\xbb\xbf{"a": 1}', tmp_path, BundleError) == {"a": 1}


def test_an_endless_text_is_not_read_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trouble, "TEXT_BYTES", 10)
    (tmp_path / "text").write_bytes(b"x" * 11)
    with pytest.raises(BundleError, match="more than 10 bytes"):
        trouble.read_text(tmp_path / "text", BundleError)


def test_it_needs_neither_torch_nor_numpy() -> None:
    code = (
        "import sys; import revdist.files.trouble, revdist.files.console; "
        "sys.exit(bool({'torch', 'numpy'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
