"""Runs that are made without a Manager, for the tests of the store."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from jimmy_manager.archives import checkpoints, previews
from jimmy_manager.archives.attempt import Attempt
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.store import Store


def attempt_at(store: Store, config: Mapping[str, Any]) -> Attempt:
    """The claim of the next generation of ``config``, with the newest commit adopted."""
    run = store.register(config)
    claim = store.claims.take(store.standing(run.key), run.digest)
    assert claim is not None
    attempt = Attempt(store.history, claim)
    attempt.adopt()
    return attempt


def commit(attempt: Attempt, epoch: int, ckpt: Mapping[str, Any] | None = None, **shown: Any) -> Commit:
    """One commit of ``epoch``; its checkpoint holds the epoch unless ``ckpt`` is given."""
    preview, figures = previews.save({"epoch": epoch, **shown}, attempt.key)
    held = {"epoch": epoch} if ckpt is None else ckpt
    return attempt.commit(
        epoch=epoch, checkpoint=lambda file: checkpoints.save(held, file), preview=preview, figures=figures
    )


def train(store: Store, config: Mapping[str, Any], *, epochs: int = 2, ckpt: Mapping[str, Any] | None = None) -> str:
    """A finished run of ``config``; its key."""
    attempt = attempt_at(store, config)
    for epoch in range(1, epochs + 1):
        commit(attempt, epoch, ckpt)
    attempt.finish()
    return attempt.key


def filling(data: bytes) -> Callable[[BinaryIO], None]:
    """What ``Files.write`` wants: a function that writes ``data``."""

    def fill(file: BinaryIO) -> None:
        file.write(data)

    return fill


def saved(ckpt: Mapping[str, Any]) -> bytes:
    """The bytes of a checkpoint."""
    file = io.BytesIO()
    checkpoints.save(ckpt, file)
    return file.getvalue()


def listing(root: Path) -> dict[str, tuple[int, int, int]]:
    """Every path below ``root`` with mode, size and time of change."""
    found = {}
    for path in [root, *root.rglob("*")]:
        stat = path.lstat()
        found[str(path.relative_to(root))] = (stat.st_mode, stat.st_size, stat.st_mtime_ns)
    return found


def scratch_below(root: Path) -> list[str]:
    """The names of scratch files below ``root``."""
    return [path.name for path in root.rglob(".*.*") if path.is_file() and not path.name.endswith(".lock")]
