"""What kind of file system a store lies on: the default of ``stale_s`` until ``jimmy doctor`` has measured it."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

SHARED_STALE_S = 30.0
"""How old a listing may be where several machines share a file system; sshfs was measured at 21 s, NFS at 30 s."""

_LOCAL = frozenset(
    [
        "apfs", "aufs", "bcachefs", "btrfs", "exfat", "ext2", "ext3", "ext4", "f2fs", "hfs", "jfs", "ntfs3", "overlay",
        "ramfs", "reiserfs", "tmpfs", "vfat", "xfs", "zfs",
    ]
)


def stale_s(path: str | os.PathLike[str]) -> float:
    """0 on a file system that one kernel serves alone, else ``SHARED_STALE_S``.

    Where the system does not tell (no ``/proc``), the answer is the safe one.
    """
    return 0.0 if kind(path) in _LOCAL else SHARED_STALE_S


def mount(path: str | os.PathLike[str]) -> str:
    """A name of the mount that holds ``path``, for this boot of this host: what one shows, another may not yet."""
    return str(os.stat(path).st_dev)


class Mount(NamedTuple):
    """One line of the mount table: where, the device's number, the type, what was mounted, and how."""

    point: str
    device: str
    kind: str
    source: str = ""
    options: str = ""


def kind(path: str | os.PathLike[str]) -> str:
    """The type of the file system that holds ``path`` (or will, once it is made); empty where unknown."""
    return found(path).kind


def found(path: str | os.PathLike[str]) -> Mount:
    """The mount that holds ``path`` (or will, once it is made); its fields are empty where the system does not tell."""
    existing = Path(path).resolve()
    while not existing.exists():
        existing = existing.parent
    device = existing.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best = Mount("", "", "")
    for each in _mounts():
        if each.device == number:
            return each
        # btrfs and overlay report other device numbers than the mount table; the longest prefix decides.
        if f"{existing}/".startswith(f"{each.point.rstrip('/')}/") and len(each.point) >= len(best.point):
            best = each
    return best


def tells_by_time_stamps(kind: str) -> bool:
    """Whether clients of such a file system see by a directory's time stamp alone that it has changed.

    Measured with NFS 3: of 40 listings made between two changes in one clock tick of the server, none showed the second
    change within 75 s, or ever, until the directory changed again. NFS 4 counts changes.
    """
    return kind == "nfs"


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether one kernel serves ``path`` alone."""
    return kind(path) in _LOCAL


def _mounts() -> list[Mount]:
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    mounts = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        kind, source, options = [*right.split(" "), "", ""][:3]  # blanks in them are escaped, and a source may be empty
        options = ",".join(dict.fromkeys([*fields[5].split(","), *options.split(",")]))
        mounts.append(Mount(_unescaped(fields[4]), fields[2], kind, _unescaped(source), options))
    return mounts


def _unescaped(text: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), text)
