"""One attempt at a run: what the owner of a generation does with it.

::

    adopt ──► commit ──► commit ──► ... ──► finish
      ▲         │ NewerCommit (first one only): a lower generation committed after the adoption
      └─────────┘
    adopt ──► commit_adopted ──► finish          (who trains nothing and only takes away: gc)

A commit is checkpoint, preview, then stats, each under a name of its own that is never written twice. It is
*acknowledged* when ``commit`` returns: a listing made after the stats were renamed showed no higher claim.
The successor claims first and lists the stats ``2 stale_s`` later, so one of the two sees the other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO

from jimmy_manager.archives import layout
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.files import Content, PendingWrite
from jimmy_manager.archives.history import Commit, History, Popped, Stats
from jimmy_manager.errors import ClaimLost, DamagedRecord, JimmyError, NoRecord, RecordError, StoreError

log = logging.getLogger(__name__)

KEPT_COMMITS = 2


class NewerCommit(JimmyError):
    """A lower generation committed after this one adopted: adopt again and go on from there."""


class Attempt:
    """The writer of one generation: adopts, commits and finishes under its claim."""

    def __init__(self, history: History, claim: Claim, *, run: Mapping[str, Any] | None = None) -> None:
        self.claim = claim
        self.key = claim.key
        self.generation = claim.generation
        self.adopted: Commit | None = None
        self._history = history
        self._files = history.files
        self._run = dict(run or {})
        self._commits: tuple[Commit, ...] = ()
        self._number = 0
        self._adopted_from = (0, 0)
        self._is_fresh = False
        self._pending: PendingWrite | None = None

    @property
    def newest(self) -> Commit | None:
        """The newest commit of this generation; before the first one, what it adopted."""
        return self._commits[-1] if self._commits else self.adopted

    @property
    def adopted_from(self) -> tuple[int, int]:
        """The order of the commit, or of the tombstone, that was adopted; zeros for none."""
        return self._adopted_from

    @property
    def is_saved(self) -> bool:
        """Whether this generation has a commit of its own."""
        return bool(self._commits)

    def describe(self, run: Mapping[str, Any]) -> None:
        """Let the stats say ``run`` of the circumstances from the next commit on."""
        self._run = dict(run)

    def adopt(self, *, ckpt: bool = True) -> Commit | None:
        """Take over the newest commit below, whichever generation made it; None where there never was one.

        Its files get names of this generation (commit 0), so that their former owner cannot remove them,
        and are verified there. Nothing is committed by this. Raises ``DamagedRecord`` where commits exist
        but none is whole: a run with results is never started afresh behind its owner's back.
        Without ``ckpt`` an empty file stands in for the checkpoint, which is not even read.
        """
        outdated = self.adopted
        try:
            self.adopted = self._history.newest(self.key, self._link if ckpt else self._link_without_ckpt)
        except NoRecord as absent:
            self.adopted = None
            self._adopted_from = (absent.generation, 0) if isinstance(absent, Popped) else (0, 0)
            if outdated is not None:
                self._remove(outdated)
        return self.adopted

    def start_afresh(self) -> None:
        """Adopt nothing, because a person asked for that; what was committed stays visible until the first commit."""
        self._is_fresh = True

    def commit(
        self, *, epoch: int, step: int = 0, train_s: float = 0.0, eval_s: float = 0.0,
        checkpoint: Callable[[BinaryIO], None], preview: bytes, figures: Mapping[str, bytes] | None = None,
        done: bool = False,
    ) -> Commit:
        """Save one state; it is acknowledged when this returns.

        ``done`` where the run was declared done before and this is a result, too: it is done at no moment less.
        Raises ``ClaimLost`` where another worker may go on instead, ``NewerCommit`` where this generation
        has to adopt again, and ``StoreError`` where the file system refused: then the state may be visible
        (``history.stats`` tells), but it is not acknowledged.
        """
        self._may_write()
        if not self._commits:
            self._settle()
        self._number += 1
        commit = self._write(epoch, step, train_s, eval_s, checkpoint, preview, figures or {})
        kept = (*self._commits, commit) if self._commits else ((self.adopted, commit) if self.adopted else (commit,))
        dropped, kept = kept[:-KEPT_COMMITS], kept[-KEPT_COMMITS:]
        stats = Stats(self.key, self.generation, self.claim.record.token, kept, done=done, run=self._run)
        self._write_stats(stats, commit)
        self._commits = kept
        self._acknowledge()
        for old in dropped:
            self._remove(old)
        return commit

    def commit_adopted(self, *, done: bool) -> None:
        """Commit what was adopted as it is and alone, by the rules of a first commit, so that all below is superseded.

        ``done`` where the run was declared done before: it is so at no moment less.
        """
        assert self.adopted is not None
        assert not self._commits
        self._may_write()
        self._settle()
        stats = Stats(self.key, self.generation, self.claim.record.token, (self.adopted,), done=done, run=self._run)
        self._write_stats(stats, self.adopted)
        self._commits = stats.commits
        self._acknowledge()

    def finish(self) -> None:
        """Declare the run done, its newest own commit being the result; ``ClaimLost`` where somebody else goes on."""
        self._require_own_commit()
        self._may_write()
        stats = Stats(self.key, self.generation, self.claim.record.token, self._commits, run=self._run)
        self._declare_done(stats)
        self.claim.drop()
        self._files.replace(stats.name, stats._replace(done=True).seal())

    def _require_own_commit(self) -> None:
        """A result that is only adopted is never declared done: its generation's former owner may commit again."""
        if not self._commits:
            raise ClaimLost(f"run {self.key}: generation {self.generation} has no commit of its own to finish with")

    def _declare_done(self, stats: Stats) -> None:
        claims = self.claim.claims
        record = self.claim.record._replace(
            generation=self.generation + 1, state="done", beat=0, at=round(claims.clock.now(), 3), after="held",
            settle=False, error=None, stats=stats.digest(),
        )
        if not self._files.create(layout.claim(self.key, record.generation), record.seal()):
            self.claim.drop()
            raise ClaimLost(f"run {self.key}: generation {record.generation} was claimed before this one was done")

    def _settle(self) -> None:
        """Before the first own commit: wait until every late commit below must be visible, then look for one."""
        self._await_late_commits()
        self._may_write()
        if not self._is_fresh and (below := self._newer_below()) is not None:
            raise NewerCommit(f"run {self.key}: generation {below[0]} committed or was popped since the adoption")

    def _await_late_commits(self) -> None:
        """Sleep until whatever a predecessor was acknowledged for must be listed here, where it may not be yet."""
        if self.claim.record.settle:
            claims = self._history.claims
            remaining = self.claim.taken_at + 2 * claims.stale_s - claims.clock.monotonic()
            if remaining > 0:
                claims.clock.sleep(remaining)

    def _newer_below(self) -> tuple[int, int] | None:
        """The order of a whole commit, or of a tombstone, that is newer than what was adopted."""
        try:
            if self._history.stats(self.key).commits[-1].order <= self._adopted_from:
                return None  # nothing newer is even named, so that no file needs to be read
            found = self._history.newest(self.key, self._history.verify)
            newest = (0, 0) if self._is_better_than(found) else found.order
        except Popped as tombstone:
            newest = (tombstone.generation, 0)
        except NoRecord:
            return None
        return newest if newest > self._adopted_from else None

    def _is_better_than(self, found: Commit) -> bool:
        """Whether ``found`` is no more than what was adopted, less its checkpoint: gc was late with it."""
        adopted = self.adopted
        return adopted is not None and adopted.has_ckpt and not found.has_ckpt and found.epoch <= adopted.epoch

    def _acknowledge(self) -> None:
        """List the claims once more: a successor that claimed before this commit could be seen must not be missed."""
        self.claim.check()

    def _may_write(self) -> None:
        if self._pending is not None:
            raise ClaimLost(f"run {self.key}: no more is written, as an earlier write may still come: {self._pending}")
        self.claim.check()

    def _link(self, commit: Commit) -> Commit:
        return self._link_files(commit, commit._replace(generation=self.generation, number=0))

    def _link_without_ckpt(self, commit: Commit) -> Commit:
        own = commit._replace(generation=self.generation, number=0, ckpt=Content.of(b""))
        self._files.replace(own.ckpt_name, b"")
        return self._link_files(commit, own)

    def _link_files(self, commit: Commit, own: Commit) -> Commit:
        """Give the files of ``commit`` the names of ``own``, but for those whose content is another there."""
        for (source, given), (name, content) in zip(commit.contents().items(), own.contents().items(), strict=True):
            if given != content:
                continue
            self._files.remove(name)
            try:
                self._files.copy(source, name)
            except FileNotFoundError:
                raise DamagedRecord(f"missing file {source}: a record names it, but it is not there") from None
            self._history.open(name, content, copied_from=source).close()
        self._adopted_from = commit.order
        return own

    def _write(
        self, epoch: int, step: int, train_s: float, eval_s: float, checkpoint: Callable[[BinaryIO], None],
        preview: bytes, figures: Mapping[str, bytes],
    ) -> Commit:
        key, generation, number = self.key, self.generation, self._number
        try:
            written = self._files.write(layout.ckpt(key, generation, number), checkpoint)
            shown = self._files.write(layout.preview(key, generation, number), _put(preview))
            drawn = {
                label: self._files.write(layout.figure(key, generation, number, label), _put(png))
                for label, png in figures.items()
            }
        except BaseException:
            self._discard(number, figures)
            raise
        at = round(self._history.claims.clock.now(), 3)
        return Commit(key, generation, number, epoch, step, at, train_s, eval_s, written, shown, drawn)

    def _write_stats(self, stats: Stats, commit: Commit) -> None:
        try:
            self._files.replace(stats.name, stats.seal())
        except PendingWrite as error:
            self._pending = error
            raise
        except StoreError:
            if not self._is_visible(stats):
                self._discard(commit.number, commit.figures)
            raise

    def _is_visible(self, stats: Stats) -> bool:
        try:
            return stats.generation in self._history.claims.look(self.key).stats and (
                self._history.read_stats(self.key, stats.generation).commits == stats.commits
            )
        except RecordError:
            return True  # not known: then its files stay

    def _remove(self, commit: Commit) -> None:
        """Remove the files of a commit that the stats no longer name."""
        for name in commit.contents():
            try:
                self._files.remove(name)
            except StoreError as error:  # left to the janitor
                log.warning("%s", error)

    def _discard(self, number: int, figures: Mapping[str, Any]) -> None:
        empty = Content(0, "")
        self._remove(
            Commit(self.key, self.generation, number, 0, 0, 0.0, 0.0, 0.0, empty, empty, dict.fromkeys(figures, empty))
        )


def _put(data: bytes) -> Callable[[BinaryIO], None]:
    def fill(file: BinaryIO) -> None:
        file.write(data)

    return fill
