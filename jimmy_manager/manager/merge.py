"""Merging checked runs into a store, each written as a worker would: claim, commit, finish.

The claim says that it is an import (``task``). Should that fail or be killed, the run stands as it stood: one that was
finished or failed stays so, and nobody trains it for that. Only with its last write does it stand as it came.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, BinaryIO, NamedTuple

from jimmy_manager.archives import code, layout
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.history import Commit
from jimmy_manager.archives.record import seal, unseal
from jimmy_manager.archives.registry import Registered
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import ClaimLost, DamagedRecord, JimmyError, NoRecord, RecordError
from jimmy_manager.keys import canonical
from jimmy_manager.manager.checked_runs import CheckedRuns, Parcel

IMPORT = "import"
"""The ``task`` of the claims of an import."""


class Loaded(NamedTuple):
    """What became of the runs in a tar or another store, or would become of them, by the keys that they have here.

    ``kept`` runs were here already, as new or newer. ``left`` says why a run was not taken; ``renamed`` maps
    keys there to those here, where they differ.
    """

    added: tuple[str, ...]
    updated: tuple[str, ...]
    kept: tuple[str, ...]
    left: dict[str, str]
    renamed: dict[str, str]


class Merge:
    """Writes checked runs into a store, one after the other; with ``dry_run`` it writes nothing, and tells the same."""

    def __init__(self, store: Store, runs: CheckedRuns, *, dry_run: bool = False) -> None:
        self._store = store
        self._runs = runs
        self._dry_run = dry_run
        self._foreseen: dict[str, str] = {}
        self._added: list[str] = []
        self._updated: list[str] = []
        self._kept: list[str] = []
        self._left = dict(runs.left)
        self._renamed: dict[str, str] = {}
        self._kept_code: set[str] = set()

    def all(self) -> Loaded:
        """Take every run that is newer than what is here."""
        for parcel in self._runs.parcels:
            key = self._take(parcel)
            if key != parcel.key:
                self._renamed[parcel.key] = key
        return Loaded(tuple(self._added), tuple(self._updated), tuple(self._kept), self._left, self._renamed)

    def _take(self, parcel: Parcel) -> str:
        entry = self._register(parcel.stored)
        standing = self._store.standing(entry.key)
        if standing.state == "held":
            owner = standing.record.owner if standing.record else "a worker whose claim is damaged"
            self._left[entry.key] = f"it is held by {owner}; import again when that has ended"
        elif (reason := self._needs_checkpoint(parcel, entry.key)) is not None:
            self._left[entry.key] = reason
        elif not self._is_newer(parcel, self._newest(entry.key)):
            self._kept.append(entry.key)
        elif self._dry_run:
            (self._updated if self._store.is_committed(entry.key) else self._added).append(entry.key)
        else:
            claim = self._store.claims.take(standing, entry.digest, max_crashes=1 << 30, task=IMPORT)
            if claim is None:
                self._left[entry.key] = "another worker has just claimed it; import again when that has ended"
            else:
                self._write(parcel, claim)
        return entry.key

    def _register(self, stored: dict[str, Any]) -> Registered:
        """The run of this configuration here; one that is new gets the form in which it was stored, and so its key."""
        ledger = self._store.ledger
        # Through the ledger: a form that was stored under its first entries may be longer than that under all of them.
        shown = ledger.shown_form(stored)
        if (known := self._store.registered(shown)) is not None:
            return known
        forms = ledger.forms(shown)
        form = next((each for each in forms if canonical(each) == canonical(stored)), forms[0])
        if not self._dry_run:
            return self._store.registry.add(form)
        entry = self._store.registry.foresee(form, self._foreseen)
        self._foreseen[entry.key] = entry.digest
        return entry

    def _needs_checkpoint(self, parcel: Parcel, key: str) -> str | None:
        """Why a run that comes without its checkpoint is of no use here; None where it is, or has one."""
        if self._has_ckpt(parcel):
            return None
        if not parcel.stats.done:
            return "it is not finished, and was exported without its checkpoint, so nobody could go on with it"
        ours = self._newest(key)
        if ours is not None and self._is_newer(parcel, ours):
            return "it was exported without its checkpoint, and the older one here can be continued"
        return None

    def _has_ckpt(self, parcel: Parcel) -> bool:
        return self._runs.has(parcel.commit.ckpt_name) and parcel.commit.has_ckpt

    def _newest(self, key: str) -> tuple[Commit, bool] | None:
        """The newest whole commit here and whether it is finished; a damaged one does not keep a whole one out."""
        try:
            commit = self._store.history.newest(key, self._store.history.verify)
            stats = self._store.history.read_stats(key, commit.generation)
        except (NoRecord, DamagedRecord):
            return None
        return commit, self._store.is_done(stats)

    def _is_newer(self, parcel: Parcel, ours: tuple[Commit, bool] | None) -> bool:
        if ours is None:
            return True
        commit, is_done = ours
        if is_done and not parcel.stats.done and parcel.commit.epoch == commit.epoch:
            return False  # not even for its checkpoint: a finished run stays as it finished
        theirs = (parcel.commit.epoch, self._has_ckpt(parcel), parcel.stats.done)
        return theirs > (commit.epoch, commit.has_ckpt, is_done)

    def _write(self, parcel: Parcel, claim: Claim) -> None:
        try:
            claim.start_heartbeat()
            self._write_as(parcel, Attempt(self._store.history, claim, run=self._origin(parcel)))
        except ClaimLost as lost:
            claim.drop()
            self._left[claim.key] = str(lost)
        except RecordError as error:
            _restore(claim, error)
            if not self._runs.leaves_damaged:
                raise
            self._left[claim.key] = "; ".join([str(error), *getattr(error, "__notes__", ())])
        except BaseException as error:
            _restore(claim, error)
            raise

    def _write_as(self, parcel: Parcel, attempt: Attempt) -> None:
        theirs, has_before = parcel.commit, False
        while True:
            try:
                before = attempt.adopt()
                has_before = before is not None
                # Between the first look and the claim somebody else may have trained on.
                if not self._is_newer(parcel, (before, False) if before else None):
                    self._kept.append(attempt.key)
                    attempt.claim.restore()
                    return
            except DamagedRecord:
                has_before = True
                attempt.start_afresh()
            try:
                attempt.commit(
                    epoch=theirs.epoch, step=theirs.step, train_s=float(theirs.train_s), eval_s=float(theirs.eval_s),
                    checkpoint=self._checkpoint(parcel), preview=self._preview(parcel, attempt.key),
                    figures={label: self._figure(theirs, label) for label in theirs.figures},
                    done=parcel.stats.done and attempt.claim.record.after == "done",
                )
                break
            except NewerCommit:
                continue
        if parcel.stats.done:
            attempt.finish()
        else:
            attempt.claim.release()
        (self._updated if has_before else self._added).append(attempt.key)

    def _checkpoint(self, parcel: Parcel) -> Callable[[BinaryIO], None]:
        if self._has_ckpt(parcel):
            return self._runs.stream(parcel.commit.ckpt_name, parcel.commit.ckpt)
        # An empty file stands in for what was left out: every commit has a checkpoint, and readers need no exception.
        return lambda _: None

    def _preview(self, parcel: Parcel, key: str) -> bytes:
        name = parcel.commit.preview_name
        raw = self._runs.exact(name, parcel.commit.preview)
        return raw if key == parcel.key else seal("preview", unseal("preview", raw, name) | {"key": key})

    def _figure(self, commit: Commit, label: str) -> bytes:
        return self._runs.exact(layout.figure(*commit[:3], label), commit.figures[label])

    def _origin(self, parcel: Parcel) -> dict[str, Any]:
        """The provenance of the run, its code kept, and where it came from; the commit's own time is the import's."""
        for digest in self._runs.code_of(parcel.stats.run):
            if digest not in self._kept_code:
                code.put(self._store.files, code.read(self._runs, digest))
                self._kept_code.add(digest)
        return parcel.stats.run | {"imported": {"store": self._runs.info.id, "at": parcel.commit.at}}


def _restore(claim: Claim, cause: BaseException) -> None:
    try:
        claim.restore()
    except JimmyError as second:
        cause.add_note(f"its claim could not be ended either: {second}")
