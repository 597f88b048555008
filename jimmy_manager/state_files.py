"""Files of tensors and plain values: written so that a crash leaves the old one, read without running anything."""

from __future__ import annotations

import errno
import os
import re
import secrets
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from jimmy_manager.errors import CheckpointError
from jimmy_manager.packing import pack, unpack

_COMPLAINT = re.compile(r"WeightsUnpickler error:\s*(.*?)(?:\. |\n|$)")


def save_state(state: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write ``state`` to ``path``, which holds either what it held before or all of it, also after a power cut.

    Creates the directory. The state may hold tensors, arrays and plain values; `pack` refuses anything else. A writer
    that is killed leaves what it had written beside ``path``, as ``.NAME.`` and 16 hexadecimal digits.
    """
    path, packed = Path(path), pack(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name that no other process can pick: with a fixed suffix two writers would share one scratch file.
    scratch = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with scratch.open("xb") as file:
            torch.save(packed, file)
            file.flush()
            os.fsync(file.fileno())
        scratch.replace(path)
    except OSError as error:
        if error.filename is None:  # that of a full disk does not say where
            error.filename = str(path)
        error.add_note("what stood in that file before, if anything did, is whole")
        raise
    finally:
        scratch.unlink(missing_ok=True)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_state(path: str | os.PathLike[str], map_location: torch.device | str | None = "cpu") -> dict[str, Any]:
    """Return what `save_state` wrote, with tensors on ``map_location``; nothing in the file is executed.

    Raises ``FileNotFoundError`` where there is no file, and ``CheckpointError`` where it is damaged, be it by one bit,
    is not of torch, holds more than tensors and plain values, or is not a dictionary.
    """
    try:
        _check_sums(path)
        state = torch.load(path, map_location=map_location, weights_only=True)
    except FileNotFoundError:
        raise FileNotFoundError(f"there is no checkpoint {str(path)!r}") from None
    except IsADirectoryError:
        example = os.path.join(path, "last.pth")
        raise CheckpointError(f"{str(path)!r} is a directory; give the file, e.g. {example!r}") from None
    except (MemoryError, CheckpointError):
        raise
    except zipfile.BadZipFile as error:
        raise CheckpointError(f"cannot load {str(path)!r}: it is damaged ({error}); take another copy of it") from error
    except Exception as error:  # torch raises half a dozen kinds for a file that it does not like
        # EINVAL: it took a damaged length for one to go back by.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise CheckpointError(
            f"cannot load {str(path)!r}: it is damaged, or holds objects that are refused because reading them runs "
            f"code ({_reason(error)}); save the state_dict() anew with the program that wrote it"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{str(path)!r} holds {type(state).__name__}, not a dictionary of states")
    return unpack(state)


def _check_sums(path: str | os.PathLike[str]) -> None:
    """Raise where the file is not as torch writes one, which saves check sums of its entries without a look at them."""
    with open(path, "rb") as file:
        start = file.read(4)
        if start.startswith(b"\x80"):
            return  # a pickle, written by a torch of old, without sums
        if start != b"PK\3\4":
            raise CheckpointError(
                f"cannot load {str(path)!r}: it is damaged, or is not a file that torch wrote (it begins with "
                f"{start!r}); give a checkpoint or saved weights"
            )
        with zipfile.ZipFile(file) as archive:
            for entry in archive.infolist():
                if entry.CRC:  # 0: its writer had switched sums off
                    with archive.open(entry) as content:
                        while content.read(1 << 20):
                            pass


def _reason(error: Exception) -> str:
    """Say what torch did not like, without its advice to read the file with less care."""
    found = _COMPLAINT.search(str(error))
    return found[1] if found else str(error).partition("\n")[0] or type(error).__name__


def leaves(state: Any, path: str = "") -> list[str]:
    """Return the dotted path of every leaf of ``state``, in order; an empty dictionary or list is a leaf.

    >>> leaves({'model': {'weight': 1.0}, 'steps': [3, 4], 'extra': {}})
    ['model.weight', 'steps.0', 'steps.1', 'extra']
    """
    if isinstance(state, Mapping) and state:
        items = [(str(name), value) for name, value in state.items()]
    elif isinstance(state, list | tuple) and state:
        items = [(str(place), value) for place, value in enumerate(state)]
    else:
        return [path]
    return [leaf for name, value in items for leaf in leaves(value, f"{path}.{name}" if path else name)]
