"""The scalars in a folder of TensorBoard's event files, read without TensorBoard's server, TensorFlow or torch.

A file is a row of records, each ``length (8 bytes), check (4), data, check (4)`` with the masked CRC-32C of the length
and of the data; the data is an ``Event`` of TensorBoard's protocol. Files of one folder are read from the oldest to the
newest: a record that tells of a restart takes back all scalars from its step on, and a later value of a step replaces
an earlier one.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple

from jimmy_manager.archives.eval_log import open_regular

_HEAD = struct.Struct("<QI")
_CHECK = struct.Struct("<I")
_OWN_TAGS = "_hparams_/"
_LARGE = 1024
"""Bytes of a record that holds more than a scalar; a smaller one may have held one before it was damaged."""
_TIME = re.compile(r"tfevents\.(\d+)")


class Point(NamedTuple):
    """One value of a tag at one step; ``at`` counts seconds from 1970."""

    value: float
    at: float


Curves = dict[str, dict[int, Point]]


class Damage(NamedTuple):
    """What could not be read of the file ``path``; ``is_end`` where only its last record is not whole."""

    path: str
    reason: str
    is_end: bool = False


def read_scalars(place: str, damage: list[Damage]) -> Curves:
    """The values of each tag by step in the folder ``place``; those of a folder below are called ``FOLDER/TAG``.

    No link is followed. What is damaged is added to ``damage``, the rest of it is read.
    """
    found: Curves = {}

    def note(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):
            damage.append(Damage(str(error.filename), error.strerror or str(error)))

    for folder, folders, names in os.walk(place, onerror=note):
        folders.sort()
        below = os.path.relpath(folder, place)
        curves: Curves = {}
        for name in sorted((name for name in names if "tfevents" in name), key=_age):
            _add_file(curves, os.path.join(folder, name), damage)
        found |= {tag if below == "." else f"{below}/{tag}": points for tag, points in curves.items() if points}
    return found


def _age(name: str) -> tuple[int, str]:
    match = _TIME.search(name)
    return (int(match[1]) if match else 0, name)


def _add_file(curves: Curves, path: str, damage: list[Damage]) -> None:
    try:
        with open_regular(path) as file:
            for data, check in _records(file, path, damage):
                if not _add_record(curves, data, check):
                    damage.append(Damage(path, "a record is damaged and left out"))
    except OSError as error:
        damage.append(Damage(path, error.strerror or str(error)))


@functools.cache
def _protocol() -> tuple[Any, Any, type[Exception], Callable[[bytes], int]]:
    """The type of an event, the mark of a restart, what raises where it is damaged, and the check of a record."""
    from google.protobuf.message import DecodeError
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c

    return Event, SessionLog.START, DecodeError, masked_crc32c


def _records(file: BinaryIO, path: str, damage: list[Damage]) -> Iterator[tuple[bytes, int]]:
    """The data of each whole record, and what its check has to be."""
    check_of = _protocol()[3]
    left = os.fstat(file.fileno()).st_size
    while head := file.read(_HEAD.size):
        length, check = _HEAD.unpack(head) if len(head) == _HEAD.size else (left, 0)
        left -= _HEAD.size + length + _CHECK.size
        is_right = len(head) == _HEAD.size and check_of(head[:8]) == check
        if len(head) == _HEAD.size and not is_right:
            damage.append(Damage(path, "a record is damaged, and what follows it cannot be told apart"))
            return
        data = file.read(length + _CHECK.size) if left >= 0 else b""
        if len(data) < length + _CHECK.size:
            damage.append(Damage(path, "its last record is not whole", is_end=True))
            return
        yield data[:length], _CHECK.unpack(data[length:])[0]


def _add_record(curves: Curves, data: bytes, check: int) -> bool:
    """Do what a record says; return False where it is damaged.

    What is large and tells of no scalar, an image say, is not checked: that is slow.
    """
    event_type, restart, decode_error, check_of = _protocol()
    try:
        event = event_type.FromString(data)
        scalars = list(_scalars(event))
    except (decode_error, ValueError, TypeError, KeyError):
        return False
    is_restart = event.HasField("session_log") and event.session_log.status == restart
    if (scalars or is_restart or len(data) <= _LARGE) and check_of(data) != check:
        return False
    if is_restart:
        for points in curves.values():
            for step in [step for step in points if step >= event.step]:
                del points[step]
    for tag, value in scalars:
        curves.setdefault(tag, {})[event.step] = Point(value, event.wall_time)
    return True


def _scalars(event: Any) -> Iterator[tuple[str, float]]:
    for value in event.summary.value:
        kind = value.WhichOneof("value")
        if kind == "simple_value":
            yield value.tag, value.simple_value
        elif kind == "tensor" and not value.tensor.tensor_shape.dim and not value.tag.startswith(_OWN_TAGS):
            yield from ((value.tag, number) for number in _number(value.tensor))


def _number(tensor: Any) -> Iterator[float]:
    """The number in a tensor of no dimensions, as TensorFlow 2 and newer writers log scalars."""
    from tensorboard.util.tensor_util import make_ndarray

    array = make_ndarray(tensor)
    if array.dtype.kind in "iuf" and array.size == 1:
        yield float(array.item())
