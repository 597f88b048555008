"""What kind of file system a store lies on: the default of ``stale_s`` until ``jimmy doctor`` has measured it."""

from __future__ import annotations

import os
import re
from pathlib import Path

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


def kind(path: str | os.PathLike[str]) -> str:
    """The type of the file system that holds ``path`` (or will, once it is made); empty where unknown."""
    existing = Path(path).resolve()
    while not existing.exists():
        existing = existing.parent
    device = existing.stat().st_dev
    number = f"{os.major(device)}:{os.minor(device)}"
    best = ("", "")
    for mount_point, fields in _mounts():
        if fields[0] == number:
            return fields[1]
        # btrfs and overlay report other device numbers than the mount table; the longest prefix decides.
        if f"{existing}/".startswith(f"{mount_point.rstrip('/')}/") and len(mount_point) >= len(best[0]):
            best = (mount_point, fields[1])
    return best[1]


def _mounts() -> list[tuple[str, tuple[str, str]]]:
    try:
        lines = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape").splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        left, _, right = line.partition(" - ")
        fields = left.split()
        mount_point = re.sub(r"\\([0-7]{3})", lambda escape: chr(int(escape[1], 8)), fields[4])
        found.append((mount_point, (fields[2], right.split()[0])))
    return found
