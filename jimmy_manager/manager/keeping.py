"""What becomes of trained runs: taken out, tidied away, handed over, merged."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from jimmy_manager.config import Config
from jimmy_manager.manager.queries import Queries

if TYPE_CHECKING:
    from jimmy_manager.archives.janitor import Swept
    from jimmy_manager.archives.looking import Condition
    from jimmy_manager.manager.gc import Freed
    from jimmy_manager.manager.merge import Loaded
    from jimmy_manager.manager.transfer import Exported


class Keeping(Queries):
    """The half of ``Manager`` that changes a store without training."""

    name: ClassVar[str] = ""

    def pop(self, key: str) -> Config:
        """Take a run out of the store and return its configuration; see ``Store.pop``."""
        key = self.store.resolve(key)
        config = self.configs[key]
        self.store.pop(key)
        return config

    def prune(self) -> Swept:
        """Remove the files of superseded generations, and return what was removed; see ``Janitor.sweep``."""
        from jimmy_manager.archives.janitor import Janitor

        return Janitor(self.store).sweep(wait=True)

    def gc(
        self, *, superseded: bool = False, keep_best: int | None = None, metric: str = "",
        mode: Literal["min", "max"] | None = None, by: str | Iterable[str] = (), failed: bool = False,
        older_than: str | float | None = None, larger_than: str | float | None = None, where: Condition = None,
        offline: bool = False, dry_run: bool = True,
    ) -> Freed:
        """Free space, or by default only say what would go; see ``gc.gc``."""
        from jimmy_manager.manager.gc import gc

        return gc(
            self.store, superseded=superseded, keep_best=keep_best, metric=metric, mode=mode, by=by, failed=failed,
            older_than=older_than, larger_than=larger_than, where=where, offline=offline, dry_run=dry_run,
        )  # fmt: skip

    def export(
        self, dest: str | os.PathLike[str], keys: Iterable[str] | str | None = None, where: Condition = None,
        ckpts: bool = True, *, as_dir: bool = False,
    ) -> Exported:
        """Write the newest commit of each chosen run to a tar, or to a directory ``dest/``; see ``transfer.export``."""
        from jimmy_manager.manager.transfer import export

        return export(self.store, dest, keys, where, ckpts, as_dir=as_dir)

    def load(self, src: str | os.PathLike[str], dry_run: bool = False) -> Loaded:
        """Merge the runs of a tar or of another store into this one, the newer epoch of each; see ``transfer.load``."""
        from jimmy_manager.manager.transfer import load

        return load(self.store, src, dry_run=dry_run, manager=type(self).name or type(self).__name__)

    def export_tar(
        self, path: str | os.PathLike[str], keys: Iterable[str] | str | None = None, ckpts: bool = True
    ) -> Exported:
        """Write the newest commit of each run (of ``keys``, where given) to a tar; see ``transfer.export_tar``."""
        from jimmy_manager.manager.transfer import export_tar

        return export_tar(self.store, path, keys, ckpts)

    def load_tar(self, path: str | os.PathLike[str]) -> Loaded:
        """Merge the runs of a tar into the store, the newer epoch of each; see ``transfer.load_tar``."""
        from jimmy_manager.manager.transfer import load_tar

        return load_tar(self.store, path, manager=type(self).name or type(self).__name__)
