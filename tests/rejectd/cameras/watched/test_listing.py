"""What is in a watched folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from rejectd.cameras.watched.listing import Kind, file_system, is_share, kind_of, walk

MOUNTS = """22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:40 / {root}/share rw - nfs4 server:/pictures rw,vers=4.2
31 30 0:41 / {root}/share/with\\040space rw - cifs //server/c rw
33 30 0:43 / {root}/share/größe rw - fuse.sshfs s:/ rw
32 22 0:42 / {root}/shared rw - tmpfs tmpfs rw
"""


@pytest.mark.parametrize(
    ("folder", "kind", "share"),
    [
        ("share/cam1", "nfs4", True),
        ("share", "nfs4", True),
        ("share/with space/deep/er", "cifs", True),
        ("share/größe/1", "fuse.sshfs", True),
        ("shared/cam1", "tmpfs", False),
        ("local", "ext4", False),
    ],
)
def test_a_share_is_known_by_the_file_system_that_is_mounted_nearest(
    tmp_path: Path, folder: str, kind: str, share: bool
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS.format(root=tmp_path))
    assert file_system(tmp_path / folder, mounts) == kind
    assert is_share(kind) is share


def test_a_file_system_that_nobody_knows_counts_as_a_share(tmp_path: Path) -> None:
    assert is_share(file_system(tmp_path, tmp_path / "absent"))
    assert is_share("fuse.somewhere")


def test_this_machine_knows_its_file_systems(tmp_path: Path) -> None:
    assert file_system(Path("/proc")) == "proc"
    assert not is_share(file_system(tmp_path))


def test_names_tell_what_a_file_is_to_a_camera() -> None:
    kinds = {
        Kind.PICTURE: ["a.png", "sub/b.JPG", "c.jfif", "d.jpe", "e.webp", "f.tiff"],
        Kind.OTHER: ["a.gif", "b.heic", "c.raw", "image", "d.jpg_original"],
        Kind.NONE: [".a.png", "b.png.tmp", "c.jpg.filepart", "~d.png", "run.log", "parts.xml"],
    }
    for kind, names in kinds.items():
        assert {name: kind_of(name) for name in names} == dict.fromkeys(names, kind)


def test_subfolders_are_walked_without_hidden_ones_and_without_links_in_circles(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/b/2.png", ".hidden/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "a" / "circle").symlink_to(tmp_path)
    entries = {entry.name: entry.kind for entry in walk(tmp_path, subfolders=True)}
    pictures = {name for name, kind in entries.items() if kind is Kind.PICTURE}
    assert pictures == {"a/1.png", "a/b/2.png"}
    assert {entry.name for entry in walk(tmp_path, subfolders=False)} == {"a"}
