"""Where a result comes from: code, library versions, host and command line, for each stats record."""

from __future__ import annotations

import shlex
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jimmy_manager.archives.code import Snapshot
from jimmy_manager.manager import git_state, own_sources, package_versions
from jimmy_manager.manager.rank_line import here

if TYPE_CHECKING:
    from jimmy_manager.manager.manager import Manager


class Provenance:
    """What stats say of the circumstances of a run.

    The sources are looked at when this is made, and again at each commit, as `setup` or `train` may import more; that
    costs next to nothing where they did not. What the store lacks of them is written with the first commit.
    """

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self._sources = own_sources.of_job(type(manager), manager.store.directory)
        self._git = git_state.of_folder(self._sources.folder)
        self._snapshot: Snapshot | None = None
        self._facts: dict[str, Any] = {}
        self._sources.snapshot()

    def facts(self) -> dict[str, Any]:
        """The circumstances as they are now, with their code kept in the store."""
        snapshot = self._sources.snapshot()
        if snapshot is not self._snapshot:
            self._facts = self._collected(snapshot)
            self._snapshot = snapshot
        return self._facts

    def _collected(self, snapshot: Snapshot) -> dict[str, Any]:
        store, threads = self._manager.store, self._manager.threads
        git: dict[str, Any] = {}
        if self._git is not None:
            git = {"commit": self._git.commit, "dirty": self._git.dirty}
            if self._git.diff:
                git["diff"] = store.sources.keep_text(self._git.diff)
        return {
            "git": git,
            "code": store.sources.keep(snapshot),
            "versions": package_versions.of_sources(snapshot.sources.values()),
            "host": socket.gethostname(),
            "device": self._manager.device,
            "threads": threads if threads is not None else _torch_threads(),
            **({"ranks": here().size} if here().size > 1 else {}),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])[:1000] if sys.argv else "",
        }


def _torch_threads() -> int | None:
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None else None
