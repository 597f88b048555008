"""Mends what an audit found. Nothing that a reader would use is ever deleted here.

What is damaged goes to ``damaged/``, and only where no worker can be writing it; what is superseded goes as
the janitor decides. Each repair beside live and stalled workers:

==========  ==========================================================================================
``move``    Never claims (their numbers would be used again), never a configuration that has claims, never
            while a worker may hold the run. What was moved is read once more; should it be whole after all
            (a stalled owner replaced it just then), it goes back unless a newer one stands there.
``return``  A whole record under ``damaged/`` (a ``move`` was killed before it looked) goes back, put-if-absent.
``mark``    The commits are those that the ``done`` claim quotes; its owner would write the same bytes.
``bury``    The empty stats of a popped run, as whoever popped it would have written them.
``retry``   A finished run without its last checkpoint gets the next claim, free for a worker to go on from
            the commit before; its stats stay what they are until that worker commits.
``remove``  A scratch file of a run that nobody holds: its writer, if any, writes again.
``sweep``   The janitor's work, by its own rules.
``share``   Only modes, and only of what this user owns, are changed.
``sign``    A hand-edited ``store.yaml`` that parses and keeps every key; what stood there is kept.
==========  ==========================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from jimmy_manager.archives import layout, sharing, store_file, strict
from jimmy_manager.archives.files import Content, Files, digest, unreadable
from jimmy_manager.archives.history import Stats
from jimmy_manager.archives.inspection import Finding, inspect
from jimmy_manager.archives.janitor import Janitor
from jimmy_manager.archives.store import Store
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.errors import DamagedRecord, RecordError, StoreError, StoreTooNew


class Repair(NamedTuple):
    """What became of a finding: ``outcome`` is its remedy where that was done, else ``left``."""

    finding: Finding
    outcome: str
    message: str = ""


def fix(store: Store, findings: Iterable[Finding]) -> list[Repair]:
    """Repair those ``findings`` that have a remedy and are still true; say of every one what became of it."""
    repairs, swept = [], []
    for finding in findings:
        if finding.remedy == "sweep":
            swept.append(finding)
        elif not finding.remedy:
            repairs.append(Repair(finding, "left", "it needs a person"))
        else:
            try:
                repairs.append(_REMEDIES[finding.remedy](store, finding))
            except (StoreError, RecordError) as error:
                repairs.append(Repair(finding, "left", str(error)))
    if swept:
        gone = set(Janitor(store).sweep(wait=True).names)
        for finding in swept:
            kept = Repair(finding, "left", "the janitor keeps it yet")
            repairs.append(Repair(finding, "sweep") if finding.name in gone else kept)
    return repairs


def displaced(store: Store) -> dict[str, tuple[str, str]]:
    """Whole records under ``damaged/`` whose place is empty: by name, where they lie and their key."""
    found = {}
    for archive in ("configs", "stats"):
        for shard in store.files.names(f"{layout.DAMAGED}/{archive}"):
            folder = f"{archive}/{shard}"
            for last in sorted(store.files.names(f"{layout.DAMAGED}/{folder}")):
                target = layout.scratch_target(last) or ""
                parsed = layout.parse(archive, target)
                if parsed is None or target in store.files.names(folder):
                    continue
                aside = f"{layout.DAMAGED}/{folder}/{last}"
                # Below the newest stats it would be superseded at once.
                newest = max(store.claims.look(parsed.key).stats, default=0) if archive == "stats" else 0
                if parsed.generation >= newest and _is_whole(store, f"{folder}/{target}", aside):
                    found[f"{folder}/{target}"] = (aside, parsed.key)
    return found


def _is_still_true(store: Store, finding: Finding) -> bool:
    parts = finding.name.split("/")
    if len(parts) < 3:
        return finding.name in store.files.names("")
    again = inspect(store, parts[1], {finding.key})
    return any((one.kind, one.name, one.remedy) == (finding.kind, finding.name, finding.remedy) for one in again)


def _move(store: Store, finding: Finding) -> Repair:
    if not _is_still_true(store, finding):
        return _not_any_more(finding)
    name, files = finding.name, store.files
    aside = layout.scratch(f"{layout.DAMAGED}/{name}")
    files.move(name, aside)
    if not _is_whole(store, name, aside):
        return Repair(finding, "move", f"it lies at {aside} now")
    if name.endswith(".json") and name.startswith(("stats/", "configs/")):
        _put_back(files, name, aside)
    elif name.rpartition("/")[2] not in files.names(name.rpartition("/")[0]):
        files.move(aside, name)
    return Repair(finding, "left", "it was whole a moment later, and is where it was")


def _put_back(files: Files, name: str, aside: str) -> bool:
    won = files.create(name, files.read(aside))
    if won:
        files.remove(aside)
    return won


def _return(store: Store, finding: Finding) -> Repair:
    aside, _ = displaced(store).get(finding.name, ("", ""))
    if not aside or not _put_back(store.files, finding.name, aside):
        return _not_any_more(finding)
    return Repair(finding, "return", f"it was at {aside}")


def _mark(store: Store, finding: Finding) -> Repair:
    if not _is_still_true(store, finding):
        return _not_any_more(finding)
    stats = _stats_named(store, finding)
    store.files.replace(finding.name, stats._replace(done=True).seal())
    return Repair(finding, "mark")


def _bury(store: Store, finding: Finding) -> Repair:
    if not _is_still_true(store, finding):
        return _not_any_more(finding)
    parsed = layout.parse("stats", finding.name.rpartition("/")[2])
    assert parsed is not None, finding
    claim = store.claims.read(parsed.key, parsed.generation)
    store.files.replace(finding.name, Stats(parsed.key, parsed.generation, claim.token, ()).seal())
    return Repair(finding, "bury")


def _retry(store: Store, finding: Finding) -> Repair:
    standing = store.standing(finding.key)
    if standing.state != "done" or standing.record is None or not _is_still_true(store, finding):
        return _not_any_more(finding)
    if store.claims.mark(standing, standing.record.digest, "retry") is None:
        return Repair(finding, "left", "another worker was first")
    return Repair(finding, "retry", "the next sweep goes on from the last whole commit")


def _remove(store: Store, finding: Finding) -> Repair:
    if not _is_still_true(store, finding):
        return _not_any_more(finding)
    store.files.remove(finding.name)
    return Repair(finding, "remove")


def _share(store: Store, finding: Finding) -> Repair:
    try:
        is_mine = sharing.mend(str(store.directory), finding.name)
    except FileNotFoundError:
        return _not_any_more(finding)
    except OSError as error:
        return Repair(finding, "left", f"{error.strerror}")
    return Repair(finding, "share" if is_mine else "left", "" if is_mine else "it is another user's, who may do it")


def _sign(store: Store, finding: Finding) -> Repair:
    repair = sign(store.files, finding)
    store.refresh()
    return repair


def sign(files: Files, finding: Finding) -> Repair:
    """Accept a hand-edited ``store.yaml``, and keep the bytes that stood there."""
    try:
        store_file.read(files)
        return _not_any_more(finding)
    except StoreTooNew as error:
        return Repair(finding, "left", str(error))
    except DamagedRecord:
        raw = files.read(layout.STORE_FILE)
    try:
        StoreFile.parse(without_digest(raw))
    except DamagedRecord as error:
        return Repair(finding, "left", str(error))
    kept = layout.scratch(f"{layout.DAMAGED}/{layout.STORE_FILE}")
    files.replace(kept, raw)
    files.replace(layout.STORE_FILE, store_file.sign(without_digest(raw)))
    return Repair(finding, "sign", f"what stood there lies at {kept}")


def without_digest(raw: bytes) -> str:
    """The text of a ``store.yaml`` without the line that digests it, wherever an editor has left that."""
    lines = raw.decode("utf-8", "replace").splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("# sha256 "))
    return text if text.endswith("\n") else f"{text}\n"


_REMEDIES: dict[str, Callable[[Store, Finding], Repair]] = {
    "move": _move, "return": _return, "mark": _mark, "bury": _bury, "retry": _retry, "remove": _remove,
    "sign": _sign, "share": _share,
}


def _not_any_more(finding: Finding) -> Repair:
    return Repair(finding, "left", "it is not so any more")


def _stats_named(store: Store, finding: Finding) -> Stats:
    parsed = layout.parse("stats", finding.name.rpartition("/")[2])
    assert parsed is not None, finding
    return strict.read_stats(store.files, parsed.key, parsed.generation)


def _is_whole(store: Store, name: str, place: str) -> bool:
    """Whether the content of ``place`` is what belongs under ``name``."""
    archive, _, last = name.split("/")
    parsed = layout.parse(archive, last)
    assert parsed is not None, name
    try:
        if archive == "stats":
            strict.unseal_stats(store.files.read(place), name)
            return True
        if archive == "configs":
            strict.unseal_config(store.files.read(place), name, parsed.key)
            return True
        expected = _named_by_stats(store, parsed.key).get(name)
        with store.files.open(place) as file:
            return digest(file) == expected
    except DamagedRecord:
        return False
    except FileNotFoundError:
        return False
    except OSError as error:
        raise unreadable(place, error) from error


def _named_by_stats(store: Store, key: str) -> dict[str, Content]:
    named: dict[str, Content] = {}
    for generation in store.claims.look(key).stats:
        try:
            for commit in strict.read_stats(store.files, key, generation).commits:
                named |= commit.contents()
        except DamagedRecord:
            continue
    return named
