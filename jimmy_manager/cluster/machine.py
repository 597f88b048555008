"""What one node is: Python, torch, devices, clock, umask; torch is imported here alone, and late."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from jimmy_manager import __version__
from jimmy_manager.cluster.place import Place
from jimmy_manager.cluster.remark import NOTE, OK, PROBLEM, Remark

_OLDEST = (3, 11)
_CLOCK_S = 2.0


def examine() -> Iterator[Remark]:
    """Remarks on this node, whatever the store."""
    yield _python()
    yield from _torch()


def _python() -> Remark:
    text = f"{platform.python_version()} ({sys.executable}), jimmy_manager {__version__}"
    if sys.version_info < _OLDEST:
        return Remark(PROBLEM, "python", text, "install Python 3.11 or newer")
    return Remark(OK, "python", text)


def _torch() -> Iterator[Remark]:
    try:
        import torch
    except Exception as error:  # noqa: BLE001  # a broken installation fails in any way: a missing library, a wrong glibc
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        yield Remark(PROBLEM, "torch", f"cannot be imported: {reason}", "install torch 2.10 or newer for this Python")
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Remark(OK, "torch", f"{torch.__version__}, {cores} cores for this process, {torch.get_num_threads()} threads")
    yield _devices()


def _devices() -> Remark:
    import torch

    try:
        names = [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())]
        if names:
            free, whole = torch.cuda.mem_get_info(0)
            counted = ", ".join(f"{names.count(name)} x {name}" for name in dict.fromkeys(names))
            return Remark(OK, "devices", f"{counted}; {free >> 30} of {whole >> 30} GiB of the first are free")
    except RuntimeError as error:
        reason = str(error).splitlines()[0][:200]
        return Remark(PROBLEM, "devices", f"a GPU is there, but cannot be used: {reason}", "look at nvidia-smi")
    return Remark(OK, "devices", "no GPU is visible to torch; training runs on the CPU")


def clock(place: Place) -> Remark:
    """Compare this node's clock with that of the file system, by the time stamp of a new file."""
    before = time.time()
    place.put("clock", b"tick")
    after, stamp = time.time(), place.mtime("clock")
    # A time stamp is as coarse as a tick of the server's kernel.
    apart = 0.0 if before - 0.1 <= stamp <= after + 0.1 else stamp - (before + after) / 2
    if abs(apart) > _CLOCK_S:
        ahead = "ahead of" if apart > 0 else "behind"
        text = f"the file system's is {abs(apart):.1f} s {ahead} this node's; no claim rests on it, times in tables do"
        return Remark(NOTE, "clock", text, "let both keep their time by NTP")
    return Remark(OK, "clock", f"agrees with the file system's to {max(abs(apart), after - before):.2f} s")


def umask(is_shared: bool) -> Remark:
    """What the umask means for whoever else is to read the store."""
    mask = _umask()
    if is_shared:
        return Remark(OK, "umask", f"{mask:04o}, which does not matter in a store that is shared")
    if mask & 0o077 == 0o077:
        text = f"{mask:04o}: nobody else can read what you make"
        return Remark(NOTE, "umask", text, "jimmy init --shared group, where others are to take part")
    return Remark(OK, "umask", f"{mask:04o}")


def _umask() -> int:
    try:
        status = Path("/proc/self/status").read_text("ascii", "replace")
        return int(status.partition("\nUmask:")[2].split()[0], 8)
    except (OSError, ValueError, IndexError):  # the only other way is to change it for a moment
        mask = os.umask(0o022)
        os.umask(mask)
        return mask
