"""``jimmy doctor`` on one node: whether the place of a store, be it there or not, is fit for one."""

from __future__ import annotations

import os
import secrets
import statistics
import time
from collections.abc import Callable, Iterator

from jimmy_manager.archives import filesystem, layout, sharing, store_file
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.store_file import StoreFile
from jimmy_manager.cluster import machine, racer
from jimmy_manager.cluster.place import WON, Place
from jimmy_manager.cluster.races import Tally
from jimmy_manager.cluster.remark import NOTE, OK, PROBLEM, Remark
from jimmy_manager.cluster.verdict import TIME_STAMPS
from jimmy_manager.errors import DamagedRecord, StoreError, StoreTooNew, UnreadableRecord

_LITTLE, _TOO_LITTLE = 10 << 30, 100 << 20
_FEW, _TOO_FEW = 100_000, 1_000
_TRIAL = b"0" * (1 << 20)
_SYNCS, _SLOW_S = 7, 0.25
_SHOWN = 3
_ALONE, _HOUR_S = "alone-", 3600.0
_TELLING = ("nocto", "noac", "nolock", "lookupcache=", "actimeo=", "acregmax=", "acdirmax=", "soft", "local_lock=")


def base_of(directory: str) -> str:
    """The store's directory, or what is there of the path to it."""
    base = os.path.abspath(directory)
    while not os.path.isdir(base):  # or not to be seen, which is found out when something is tried there
        if os.path.exists(base):
            raise StoreError(f"there can be no store at {directory!r}: {base!r} is a file")
        base = os.path.dirname(base)
    return base


def examine(
    directory: str, *, race: Callable[[Place], list[Tally]] = racer.race, kind: type[Place] = Place
) -> Iterator[Remark]:
    """Remarks on this node and on ``directory``, one by one; what is tried out there leaves nothing."""
    yield from machine.examine()
    base, info = base_of(directory), None
    try:
        info = store_file.read(Disk(directory))
        yield _store(directory, info)
    except (DamagedRecord, StoreTooNew, UnreadableRecord) as error:
        yield Remark(PROBLEM, "store", str(error), f"jimmy check --store {directory}")
    yield machine.umask(is_shared=bool(info and info.shared))
    yield from _file_system(base)
    yield from _space(base)
    if info and info.shared:
        yield from _modes(directory)
    folder = kind(base).below(layout.DOCTOR)
    place = folder.below(f"{_ALONE}{secrets.token_hex(4)}")
    try:
        place.make()
        _sweep(folder, now=os.stat(place.root).st_mtime)
        yield from _tried(place, race)
    except StoreError as error:
        remedy = "ask its owner for access, or take another place"
        yield Remark(PROBLEM, "permissions", str(error), remedy, forbids=True)
    finally:
        place.clear()
    yield from _record(info, base)


def _sweep(folder: Place, now: float) -> None:
    """Take away what doctors that were killed left an hour ago, by the clock of the file system."""
    for name in folder.names():
        if name.startswith(_ALONE) and 0 < folder.mtime(name) < now - _HOUR_S:
            folder.below(name).clear()


def _store(directory: str, info: StoreFile | None) -> Remark:
    if info is None:
        return Remark(OK, "store", f"there is none at {directory} yet; the first sweep makes it, or 'jimmy init' does")
    whose = f", of {info.manager}" if info.manager else ""
    shared = ", shared with its group" if info.shared else ""
    return Remark(OK, "store", f"{directory}{whose}, keys of {info.key_len} digits{shared}")


def _file_system(base: str) -> Iterator[Remark]:
    mount = filesystem.found(base)
    options = mount.options.split(",")
    source = f" ({mount.source})" if mount.source else ""
    text = f"{mount.kind or 'of unknown type'}{source} at {mount.point or base}"
    if "ro" in options:
        remedy = "take a place that can be written"
        yield Remark(PROBLEM, "file system", f"{text}, mounted read-only", remedy, forbids=True)
        return
    telling = [option for option in options if option.startswith(_TELLING)]
    yield Remark(OK, "file system", ", ".join([text, *telling]))
    if "soft" in options:
        text = "mounted soft: while the server is away writes fail, and workers end"
        yield Remark(NOTE, "file system", text, "mount it hard; nothing that was committed is lost either way")
    if filesystem.tells_by_time_stamps(mount.kind):
        yield TIME_STAMPS
    if mount.kind == "tmpfs":
        yield Remark(NOTE, "file system", "it is in memory: a reboot takes all of it", "take a place on a disk")


def _space(base: str) -> Iterator[Remark]:
    found = os.statvfs(base)
    free = found.f_bavail * found.f_frsize
    level = PROBLEM if free < _TOO_LITTLE else NOTE if free < _LITTLE else OK
    remedy = "" if level == OK else "free some, or take another place"
    yield Remark(level, "space", f"{free / (1 << 30):,.1f} GiB are free", remedy)
    if found.f_files == 0:
        yield Remark(OK, "inodes", "as many files as there is space for")
        return
    level = PROBLEM if found.f_favail < _TOO_FEW else NOTE if found.f_favail < _FEW else OK
    text = f"{found.f_favail:,} more files fit, and a run takes up to 8 besides its logs"
    yield Remark(level, "inodes", text, "" if level == OK else "remove some files, or take another place")


def _modes(directory: str) -> Iterator[Remark]:
    wrong = list(sharing.wrong(directory))
    group = sharing.group_name(os.stat(directory).st_gid)
    if not wrong:
        yield Remark(OK, "group", f"members of {group} may read and write all of it")
        return
    shown = ", ".join(f"{directory if each.name == '.' else each.name} {each.why}" for each in wrong[:_SHOWN])
    more = f", and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
    remedy = f"jimmy check --fix, or each owner types: {sharing.chmod_line(directory)}"
    yield Remark(PROBLEM, "group", f"members of {group} are kept out: {shown}{more}", remedy)


def _tried(place: Place, race: Callable[[Place], list[Tally]]) -> Iterator[Remark]:
    yield _permissions(place)
    yield from _quota(place)
    yield _links(place)
    yield _syncs(place)
    yield machine.clock(place)
    yield from _races(race(place.below("races").make()))


def _permissions(place: Place) -> Remark:
    """Everything that a worker does to a file, once; ``StoreError`` where one of them is refused."""
    place.put("file", b"1")
    place.put("file", b"2")
    if place.read("file") != b"2":
        text = "a file that was replaced still shows its old content to the very process that replaced it"
        return Remark(PROBLEM, "permissions", text, "take another place", forbids=True)
    place.remove("file")
    if "file" in place.names():
        return Remark(NOTE, "permissions", "a file that was removed is still listed to the process that removed it")
    found = os.stat(os.path.dirname(os.path.dirname(place.root)))
    group, mode = sharing.group_name(found.st_gid), found.st_mode & 0o7777
    whose = f"owned by {_user(found.st_uid)}, group {group}, mode {mode:04o}"
    return Remark(OK, "permissions", f"files can be made, replaced and removed ({whose})")


def _quota(place: Place) -> Iterator[Remark]:
    try:
        place.put("trial", _TRIAL)
        place.remove("trial")
    except StoreError as error:
        yield Remark(PROBLEM, "quota", f"a file of 1 MiB is refused: {error}", "free some space: 'jimmy prune'")


def _links(place: Place) -> Remark:
    place.put("one", b"1")
    if (outcome := place.link("one", "two", b"1")) == WON:
        return Remark(OK, "links", "a file can have a second name")
    text = f"a second name for a file is refused ({outcome}): claims are opened with O_EXCL, checkpoints copied"
    return Remark(NOTE, "links", f"{text} where a link would do")


def _syncs(place: Place) -> Remark:
    times = []
    for number in range(_SYNCS):
        begin = time.monotonic()
        place.put(f"sync{number}", b"0" * 4096)
        times.append(time.monotonic() - begin)
    usual = statistics.median(times)
    text = f"a small file is durable after {usual * 1000:.1f} ms, {max(times) * 1000:.1f} ms at worst"
    if usual > _SLOW_S:
        return Remark(NOTE, "fsync", text, "save seldom: a larger save_interval; a commit waits for several of these")
    return Remark(OK, "fsync", text)


def _races(found: list[Tally]) -> Iterator[Remark]:
    link, opened = found
    counting = opened if link.is_refused else link
    how = "by O_EXCL" if link.is_refused else "by link"
    if counting.is_safe:
        yield Remark(OK, "claims", f"{counting} ({how}, among processes of this host)")
    else:
        text = f"cannot be safe: {counting} ({how}, among processes of this host)"
        yield Remark(PROBLEM, "claims", text, "keep the store on another file system", forbids=True)


def _record(info: StoreFile | None, base: str) -> Iterator[Remark]:
    if info is not None and info.refused:
        remedy = "run 'jimmy doctor --peer' again once that was mended"
        yield Remark(PROBLEM, "two nodes", info.refused, remedy, forbids=True)
    elif info is not None and info.doctor is not None and info.stale_s is not None:
        nodes = " and ".join(map(str, info.doctor.get("nodes", [])))
        told = f"{nodes} examined it on {info.doctor.get('at', '?')}: a listing may be {info.stale_s:g} s old"
        yield Remark(OK, "two nodes", told)
    elif filesystem.is_local(base):
        yield Remark(OK, "two nodes", "one kernel serves this file system, so listings are never old")
    else:
        text = f"not examined: listings are taken to be up to {filesystem.SHARED_STALE_S:g} s old"
        yield Remark(NOTE, "two nodes", text, "run 'jimmy doctor --peer' on two nodes at once, for some two minutes")


def _user(number: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)
