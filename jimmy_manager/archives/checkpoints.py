"""Checkpoints: a dictionary of Python values and tensors to a torch file and back, running nothing.

Read with ``weights_only=True`` alone; ``packing`` says what may stand in one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, BinaryIO

from jimmy_manager.archives.files import unreadable
from jimmy_manager.errors import CheckpointError
from jimmy_manager.packing import pack, unpack

GC = "gc"
"""The entry in a run's provenance that says when gc removed its checkpoint."""


def save(ckpt: Mapping[str, Any], file: BinaryIO) -> None:
    """Write ``ckpt`` to ``file``; ``CheckpointError`` names the path of a value that cannot be stored."""
    save_packed(pack(ckpt), file)


def save_packed(packed: Any, file: BinaryIO) -> None:
    """Write what ``pack`` returned; whoever packs first writes nothing at all for a value that is refused."""
    import torch

    torch.save(packed, file)


def load(file: BinaryIO, name: str) -> dict[str, Any]:
    """The dictionary in ``file``, its tensors on the CPU; ``name`` is for the error.

    ``file`` has been verified against its digest. So what torch cannot read is not damaged, and is no reason to pass
    over it to an older one: ``CheckpointError``, or ``UnreadableRecord`` where the file system stopped handing it over.
    """
    import torch

    try:
        loaded: dict[str, Any] = unpack(torch.load(file, map_location="cpu", weights_only=True))
    except OSError as error:
        raise unreadable(name, error) from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises half a dozen kinds for a file that it does not like
        reason = str(error).partition("\n")[0].partition("\x1b")[0]
        raise CheckpointError(
            f"cannot load checkpoint {name}: it is what was saved, but torch {torch.__version__} refuses it: {reason}"
        ) from error
    return loaded


def left_out(key: str, run: Mapping[str, Any]) -> CheckpointError:
    """The error for run ``key``, which is here without its checkpoint; ``run`` is its provenance, which tells why."""
    if GC in run:
        return CheckpointError(
            f"the checkpoint of run {key} was removed by gc, so it can be looked at, but neither continued nor fetched"
            "; import an export that has it, or train it anew from nothing (resume=False, --fresh)"
        )
    return CheckpointError(
        f"run {key} was exported without its checkpoint, so it can be looked at, but neither continued nor fetched; "
        "import an export that has the checkpoints, or train it anew from nothing (resume=False, --fresh)"
    )
