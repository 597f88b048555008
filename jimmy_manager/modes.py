"""Who may read and write what lies in a directory that a group shares, whatever the umask of each of them.

Such a directory is set-group-id and writable by its group: what is made in it belongs to that group. The mode of a new
file or directory is set before it gets the name under which others look for it.
"""

from __future__ import annotations

import os
import secrets
import stat

FILE = 0o660
FOLDER = 0o2770
_ALL = 0o7777


def is_shared(folder: str | os.PathLike[str]) -> bool:
    """Whether a directory is shared by its group: set-group-id, and all rights for the group; False where it is not."""
    try:
        mode = os.stat(folder).st_mode
    except OSError:
        return False
    return stat.S_ISDIR(mode) and mode & 0o2070 == 0o2070


def give(target: int | str, wanted: int) -> None:
    """Give the file or directory ``target`` (a descriptor or a path) the mode ``wanted``, if it has another one.

    Raises ``OSError`` where that is refused, unless it gives all of these rights, and perhaps more.
    """
    if os.stat(target).st_mode & _ALL == wanted:
        return
    try:
        os.chmod(target, wanted)
    except OSError:
        if os.stat(target).st_mode & wanted != wanted:
            raise


def make_folder(path: str, mode: int = FOLDER) -> None:
    """Make the directory ``path`` with ``mode``, whatever the umask; ``FileExistsError`` where there is one already.

    Between mkdir and chmod others would be refused, for ever after a kill, so that happens under a scratch name.
    """
    parent, _, last = path.rpartition("/")
    scratch = f"{parent}/.{last}.{secrets.token_hex(8)}"
    os.mkdir(scratch, mode & 0o777)
    try:
        give(scratch, mode)
        # Over an empty directory a rename succeeds, which does no harm; over a full one it does not.
        os.rename(scratch, path)
    except OSError:
        os.rmdir(scratch)
        if os.path.isdir(path):
            raise FileExistsError(path) from None
        raise


def make_folders(path: str) -> None:
    """Make ``path`` and what is missing above it, each like the directory above where a group shares that one."""
    path = os.path.abspath(path)
    if os.path.isdir(path):
        return
    above = os.path.dirname(path)
    make_folders(above)
    try:
        if is_shared(above):
            make_folder(path, os.stat(above).st_mode & _ALL)
        else:
            os.mkdir(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def share_file(path: str) -> None:
    """Give ``path`` the rights of its directory, where a group shares that and the file is this user's own."""
    folder = os.path.dirname(path) or "."
    if is_shared(folder) and os.stat(path).st_uid == os.geteuid():
        give(path, os.stat(folder).st_mode & 0o666)
