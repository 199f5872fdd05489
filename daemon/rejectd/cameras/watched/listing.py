"""Lists a watched folder: its pictures, its subfolders, and files that are not shown."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator
from enum import Enum
from pathlib import Path, PurePath
from typing import NamedTuple

from revdist.data.pictures import is_picture

_DEPTH = 8  # of subfolders in subfolders
_NO_PICTURES = (".txt", ".log", ".xml", ".json", ".csv", ".yaml", ".yml", ".ini", ".md", ".md5", ".sha256", ".db")
_TEMPORARY = ("~", ".tmp", ".part", ".partial", ".crdownload", ".filepart", ".swp", ".lock")

# The clock of these file systems is the kernel's own. All others, also those that nobody has thought of, are shares.
_LOCAL = frozenset(
    {"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs", "ramfs", "overlay", "zfs", "bcachefs", "vfat", "exfat"}
    | {"ntfs3", "jfs", "nilfs2", "udf"}
)
_ESCAPED = re.compile(r"\\([0-7]{3})")  # blanks and backslashes in names
_MOUNTS = Path("/proc/self/mountinfo")


class Stamp(NamedTuple):
    """The size, times and inode of a file, by which one content of the file is told from the next."""

    inode: int
    size: int
    modified_ns: int
    changed_ns: int  # of the inode: written, renamed, linked
    links: int
    is_file: bool

    @property
    def written_unix_ns(self) -> int:
        """When the file was last written. A rename changes the inode's time later, so the earlier of both counts."""
        return min(self.modified_ns, self.changed_ns)

    def same(self, other: Stamp | None, *, shared: bool) -> bool:
        """Whether the content is the same, as far as can be told from outside.

        On a local file system the inode decides: tools may set a file's time without changing its content, and the
        kernel reports every write. On a share the time decides: its client makes up the inode numbers, and no event
        reports a write.
        """
        if other is None or self.size != other.size:
            return False
        return self.modified_ns == other.modified_ns if shared else self.inode == other.inode


class Kind(Enum):
    """How a camera treats an entry of a folder."""

    PICTURE = "picture"
    FOLDER = "folder"
    OTHER = "other"  # may be a picture, but of a kind that is not shown
    NONE = "none"  # hidden, temporary, a protocol


class Entry(NamedTuple):
    """One name in a listing."""

    name: str  # relative to the root, as in `2026-11-30/part7.png`
    kind: Kind
    stamp: Stamp | None  # of pictures


def stamp_of(path: Path) -> Stamp | None:
    """The stamp of a file; None if the file does not exist or may not be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return Stamp(
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_nlink,
        stat.S_ISREG(status.st_mode),
    )


def kind_of(name: str) -> Kind:
    """How a camera treats a file of this name."""
    base = PurePath(name).name
    if is_picture(base):
        return Kind.PICTURE
    lower = base.lower()
    if lower.startswith((".", "~")) or lower.endswith(_TEMPORARY) or lower.endswith(_NO_PICTURES):
        return Kind.NONE
    return Kind.OTHER


def walk(root: Path, *, subfolders: bool) -> Iterator[Entry]:
    """The pictures, subfolders and files of other kinds in a folder, without hidden ones.

    Raises:
        OSError: if the folder itself cannot be listed. A subfolder that cannot has no entries.
    """
    waiting = [""]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(root / folder) as entries:
                for entry in entries:
                    name = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if not entry.name.startswith("."):
                            yield Entry(name, Kind.FOLDER, None)
                            if subfolders and name.count("/") < _DEPTH:
                                waiting.append(name)
                        continue
                    kind = kind_of(name)
                    stamp = stamp_of(root / name) if kind is Kind.PICTURE else None
                    if stamp or kind is Kind.OTHER:
                        yield Entry(name, kind, stamp)
        except OSError:
            if not folder:
                raise


def file_system(path: Path, mounts: Path = _MOUNTS) -> str:
    """The kind of file system that holds a folder, as `ext4` or `nfs4`; empty if it cannot be told."""
    target = str(path.resolve())
    best, kind = "", ""
    try:
        lines = mounts.read_text(errors="surrogateescape").splitlines()
    except OSError:
        return ""
    for line in lines:
        mount_fields, _, type_fields = line.partition(" - ")
        point = _ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), mount_fields.split(" ")[4])
        if len(point) >= len(best) and (target + "/").startswith(point.rstrip("/") + "/"):
            best, kind = point, type_fields.split(" ")[0]
    return kind


def is_share(kind: str) -> bool:
    """Whether the times of files on this kind of file system come, or may come, from another computer's clock."""
    return kind not in _LOCAL
