"""Freeing space in a store whose runs others may be training, reading or copying at this moment.

A file that stats name is never simply removed: a reader may be about to open it, a worker about to adopt it. So gc does
what a worker would do. It claims the next generation of the run, commits there what shall stay, and then lets the
janitor take what is superseded, by the janitor's own rules::

    run at rest            claim N+1, task gc       stats N+1                  as it was            janitor
    done, failed, paused ──► (held) ──────────────► less a checkpoint, or ────► done: claim N+2 ───► below N+1
          ▲                    │                    less the older commit       else: claim N+1
          └────────────────────┴────────────────────────────┴ killed: judged as it stood before

- *A held run is never touched*, nor one whose worker was lost: the next worker goes on with it. A claim has one winner,
  so of gc and a worker that begins at this moment one goes on, and the other leaves the run alone. What has changed
  between the plan and the claim has a higher number by then, and is left, too.
- *A finished run stays finished*: its new stats are marked done from the first moment, which says no more than the
  claim that declared it done before. A failed one keeps its error, a paused one stays free.
- *Killed at any instruction*: before the new stats readers see the old ones, whose files are all there; after them the
  new ones. Nothing is removed before the new stats were acknowledged (a listing showed no higher claim), read back to
  the last byte and seen unchanged for ``2 stale_s``. A claim of gc's that nobody keeps alive stands for the state that
  it was made after, so nobody trains because gc died. The next gc, or ``jimmy prune``, takes what was left.
- *Stalled for longer than its lease*: a worker that extends the run may have adopted the old checkpoint under its own
  name, which no janitor removes. Stats of gc that appear only then are no newer commit to it (the same epoch with
  less), and gc itself is told that it has lost, and removes nothing.
- *A reader that is late* finds a file missing, reads again by the usual rules, and meets the new stats: it sees the
  preview, or is told that gc removed the checkpoint. It is never told of damage.

Only a run that is finished or failed may lose its checkpoint. Not freed are configurations and claims, whose numbers
would be used again; but with ``offline``, by which a person promises that nobody uses the store now, those of popped
runs go (see ``gc_offline``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, NamedTuple

from jimmy_manager.archives import checkpoints, layout
from jimmy_manager.archives.attempt import Attempt, NewerCommit
from jimmy_manager.archives.claim import Claim
from jimmy_manager.archives.files import PendingWrite
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.errors import (
    ClaimLost,
    ConfigError,
    DamagedRecord,
    JimmyError,
    ReadOnlyStore,
    RecordError,
    StoreError,
)
from jimmy_manager.manager import gc_offline
from jimmy_manager.manager.gc_plan import Plan, Wanted, make_plans

if TYPE_CHECKING:
    from jimmy_manager.archives.looking import Condition

_NEVER = 1 << 30


class Item(NamedTuple):
    """What goes of one run: ``checkpoint``, ``older commits``, ``popped run``; or ``leftover``, a file of no run."""

    key: str
    what: str
    names: tuple[str, ...]
    size: int


class Freed(NamedTuple):
    """What gc has removed, or would remove, and the bytes that this frees; ``left`` says why runs were left alone."""

    items: tuple[Item, ...]
    size: int
    left: dict[str, str]


def gc(
    store: Store, *, superseded: bool = False, keep_best: int | None = None, metric: str = "",
    mode: Literal["min", "max"] | None = None, by: str | Iterable[str] = (), failed: bool = False,
    older_than: str | float | None = None, larger_than: str | float | None = None, where: Condition = None,
    offline: bool = False, dry_run: bool = True,
) -> Freed:
    """Free space in ``store``, or with ``dry_run`` (the default) only say what would go.

    ``superseded`` takes all commits but the newest of runs at rest. ``keep_best`` takes the checkpoints of finished
    runs but the best so many by ``metric``, of each group with equal fields ``by``; ``failed`` those of failed runs.
    ``where`` says which runs there are, for all of these. What they take is narrowed by ``older_than`` (seconds, or a
    text such as ``90d``) and ``larger_than`` (bytes that would be free, or ``1G``); these alone take the checkpoints
    of all finished runs. ``offline``: nobody else uses the store now. Raises ``ConfigError`` where nothing is asked
    for, or it is not clear what is best.
    """
    fields = (by,) if isinstance(by, str) else tuple(by)
    wanted = Wanted.of(superseded, keep_best, metric, mode, fields, failed, older_than, larger_than, where)
    if not (wanted.asks or offline):
        raise ConfigError(
            "what may go? superseded commits (--superseded), all but the best (--keep-best K --metric NAME), failed "
            "runs (--failed), old or large ones (--older-than 90d, --larger-than 1G), or leftovers (--offline)"
        )
    if store.read_only and not dry_run:
        raise ReadOnlyStore(f"cannot free space in {store}: it was opened read-only")
    janitor = Janitor(store)
    plans, left = make_plans(store, janitor, wanted) if wanted.asks else ([], {})
    if not dry_run and plans:
        plans = _carry_out(store, janitor, plans, left)
    items = [Item(plan.key, plan.what, plan.names, plan.size) for plan in plans]
    if offline:
        items += [Item(*found) for found in gc_offline.collect(store, janitor, left, dry_run=dry_run)]
    return Freed(tuple(items), sum(item.size for item in items), left)


def _carry_out(store: Store, janitor: Janitor, plans: list[Plan], left: dict[str, str]) -> list[Plan]:
    """Do what is planned, run by run; the plans that were done, with what is gone by now."""
    clock, settled_s = store.claims.clock, 2 * store.claims.stale_s
    seen_at = clock.monotonic()
    # Once for all runs, so that every commit made before they were seen at rest is listed by now.
    clock.sleep(settled_s)
    done: list[Plan] = []
    pending: list[Plan] = []
    for plan in plans:
        if reason := _rewrite(store, janitor, plan, seen_at) if plan.rewrites else "":
            left[plan.key] = reason
        # At once where that is decided at once: on a full disk the next run needs the space.
        elif (swept := janitor.sweep_run(plan.key)) is not None:
            done.append(plan.of(swept.names))
        else:
            pending.append(plan)
    if pending:
        clock.sleep(settled_s)
    for plan in pending:
        if (swept := janitor.sweep_run(plan.key)) is not None:
            done.append(plan.of(swept.names))
        else:
            left[plan.key] = "it is written anew, but its old files are still there; 'jimmy prune' removes them"
    return done


def _rewrite(store: Store, janitor: Janitor, plan: Plan, seen_at: float) -> str:
    """Commit what shall stay of a run in a generation of its own; return why that was not done, or nothing."""
    standing = store.standing(plan.key)
    if (standing.state, standing.trace) != (plan.standing.state, plan.standing.trace) or standing.record is None:
        return "it has changed since it was looked at"
    try:
        claim = store.claims.take(standing, standing.record.digest, max_crashes=_NEVER, task=checkpoints.GC)
    except StoreError as error:
        return str(error)
    if claim is None:
        return "another worker has just claimed it"
    # Its owner ended by itself, after a commit of its own: it was seen to, and writes no more since then.
    if standing.record.state != "held" and (plan.stats.done or standing.trace.top in standing.trace.stats):
        claim.taken_at = min(claim.taken_at, seen_at)
    run = dict(plan.stats.run)
    if plan.drops_ckpt:
        run[checkpoints.GC] = {"at": round(store.claims.clock.now())}
    try:
        claim.start_heartbeat()
        _commit(Attempt(store.history, claim, run=run), plan)
        return ""
    except ClaimLost as lost:
        claim.drop()
        return str(lost)
    except (NewerCommit, RecordError, StoreError) as error:
        _restore(janitor, claim, error)
        return "; ".join([str(error), *getattr(error, "__notes__", ())])
    except BaseException as error:
        _restore(janitor, claim, error)
        raise


def _commit(attempt: Attempt, plan: Plan) -> None:
    attempt.adopt(ckpt=not plan.drops_ckpt)
    if attempt.adopted_from != plan.stats.commits[-1].order:
        raise DamagedRecord("its newest commit is not whole, or no longer the newest; see 'jimmy check'")
    is_done = plan.standing.state == "done"
    attempt.commit_adopted(done=is_done)
    if is_done:
        attempt.finish()
    else:
        attempt.claim.restore()


def _restore(janitor: Janitor, claim: Claim, cause: BaseException) -> None:
    """Leave the run as it was found, and nothing of what was adopted: the next gc would adopt it once more."""
    try:
        files = janitor.files_of(claim.key).get(claim.generation, [])
        # Stats that are there, or may still come, name them.
        if not isinstance(cause, PendingWrite) and layout.stats(claim.key, claim.generation) not in files:
            janitor.remove(files)
    except (OSError, JimmyError) as second:
        cause.add_note(f"what it has adopted is still there: {second}")
    try:
        claim.restore()
    except JimmyError as second:
        cause.add_note(f"its claim could not be ended either: {second}")
