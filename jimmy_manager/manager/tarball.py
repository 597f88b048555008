"""Plain tar files: written with the same bytes for the same content, and read believing nothing.

The reader is our own: tarfile's skips what it cannot parse, follows chains of headers without limit, and its
filters were bypassed more than once. Here a member is a regular file or the tar is refused. Compressed tars are
not read: what a few bytes unpack to would have no bound.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

from jimmy_manager.errors import DamagedRecord

_BLOCK = 512
_CHUNK = 1 << 20
_ZEROS = bytes(_BLOCK)
_MOST_EXTENDED = 1 << 16
_MEANT = {"path", "size"}
_IGNORED = {"mtime", "atime", "ctime", "uid", "gid", "uname", "gname", "comment"}
_KINDS = {
    tarfile.LNKTYPE: "a hard link", tarfile.SYMTYPE: "a symbolic link", tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device", tarfile.FIFOTYPE: "a pipe", tarfile.DIRTYPE: "a folder",
}
END = bytes(2 * _BLOCK)


class Member(NamedTuple):
    """One regular file in a tar: where its content begins, and its size."""

    name: str
    offset: int
    size: int


def header(name: str, size: int) -> bytes:
    """What stands before a member of ``size`` bytes; nothing in it depends on who writes it, where and when."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


def padding(size: int) -> bytes:
    """What stands after a member of ``size`` bytes."""
    return bytes(-size % _BLOCK)


def members(file: BinaryIO, tar: str) -> dict[str, Member]:
    """Every member of the tar in ``file``; ``DamagedRecord`` names the first one that is not a whole regular file.

    Names are not judged here, but none comes twice.
    """
    length = file.seek(0, 2)
    found: dict[str, Member] = {}
    extended: dict[str, str] = {}
    position = 0
    while (block := _block(file, position, length, tar)) != _ZEROS:
        info = _parse(block, position, tar)
        name = extended.get("path", info.name)
        size = _size(extended.get("size"), info.size, name, tar)
        data = position + _BLOCK
        position = data + size + len(padding(size))
        if position > length:
            raise DamagedRecord(f"{tar}: member {name!r} claims {size} bytes, but the file ends before them")
        if info.type == tarfile.XHDTYPE:
            if extended or size > _MOST_EXTENDED:
                raise DamagedRecord(f"{tar}: member {name!r} has more headers than a file needs")
            file.seek(data)
            extended = dict(_records(file.read(size), name, tar))
            continue
        extended = {}
        if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
            kind = _KINDS.get(info.type, f"of type {info.type!r}")
            raise DamagedRecord(f"{tar}: member {name!r} is {kind}; only regular files are taken")
        if name in found:
            raise DamagedRecord(f"{tar}: member {name!r} is there twice")
        found[name] = Member(name, data, size)
    file.seek(position)
    while rest := file.read(_CHUNK):
        if rest.strip(b"\0"):
            raise DamagedRecord(f"{tar}: something follows the end of the tar")
    if length < position + len(END) or extended:
        raise DamagedRecord(f"{tar}: the tar ends in the middle, after {len(found)} members")
    return found


def content(file: BinaryIO, member: Member, tar: str) -> Iterator[bytes]:
    """The content of ``member`` in parts."""
    file.seek(member.offset)
    left = member.size
    while left:
        part = file.read(min(left, _CHUNK))
        if not part:
            raise DamagedRecord(f"{tar}: member {member.name!r} has lost its last {left} bytes")
        left -= len(part)
        yield part


def _block(file: BinaryIO, position: int, length: int, tar: str) -> bytes:
    if position + _BLOCK > length:
        raise DamagedRecord(f"{tar}: the tar ends in the middle, at byte {length}")
    file.seek(position)
    return file.read(_BLOCK)


def _parse(block: bytes, position: int, tar: str) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise DamagedRecord(f"{tar} is no plain tar, or damaged at byte {position}: {error}") from error


def _size(extended: str | None, plain: int, name: str, tar: str) -> int:
    if extended is not None:
        if not (extended.isascii() and extended.isdigit() and len(extended) < 20):
            raise DamagedRecord(f"{tar}: member {name!r} has the size {extended[:40]!r}")
        return int(extended)
    if plain < 0:
        raise DamagedRecord(f"{tar}: member {name!r} has the size {plain}")
    return plain


def _records(raw: bytes, name: str, tar: str) -> Iterator[tuple[str, str]]:
    """The records ``LENGTH KEYWORD=VALUE`` of an extended header that mean something here."""
    while raw:
        digits = raw.partition(b" ")[0]
        length = int(digits) if digits.isdigit() and len(digits) < 7 else 0
        record, raw = raw[:length], raw[length:]
        keyword, equals, value = record[len(digits) + 1 :].partition(b"=")
        if len(record) != length or not record.endswith(b"\n") or not equals:
            raise DamagedRecord(f"{tar}: the extended header of {name!r} is damaged")
        word = keyword.decode("utf-8", "replace")
        if word not in _MEANT | _IGNORED:
            raise DamagedRecord(f"{tar}: the extended header of {name!r} has {word[:40]!r}, which no plain file needs")
        if word in _MEANT:
            yield word, value[:-1].decode("utf-8", "replace")
