"""Keys: a put-if-absent registry in which two configurations collide, one of them is popped, and a creation may stall.

Configurations ``a`` and ``b`` have digests that begin alike: the short key ``s`` belongs to whichever registers first,
the other one takes its longer key ``s.a`` or ``s.b``. It follows ``jimmy_manager.archives.registry`` and
``disk.Disk.create``. With links a record appears whole. Without them a name is created empty, then filled: a reader
who meets the empty file waits, reads again, moves it aside, and puts back what it moved if it was filled meanwhile.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

EMPTY = "empty"


class Worker(NamedTuple):
    """Registers ``config`` and then trains it: ``at`` says what it does next, ``name`` at which key.

    ``file`` is the number of the file that it has created, or moved aside.
    """

    config: str
    at: str = "look"
    name: str = "s"
    file: int = 0


class Moment(NamedTuple):
    """``names`` are pairs of a name and the number of its file, ``files`` what each holds; number 0 is no file.

    ``keys`` are pairs of a configuration and a key that it was given, ``runs`` of a key and whose commit is there.
    """

    workers: tuple[Worker, ...]
    names: tuple[tuple[str, int], ...] = ()
    files: tuple[str, ...] = ("",)
    keys: frozenset[tuple[str, str]] = frozenset()
    runs: tuple[tuple[str, str], ...] = ()
    pops: int = 0
    crashes: int = 0

    def held(self, name: str) -> str:
        """What the file ``name`` holds; "" where there is none."""
        return self.files[dict(self.names).get(name, 0)]


class Found(NamedTuple):
    """How many moments there are, and the schedule that breaks a promise, if one does."""

    moments: int
    broken: str = ""
    schedule: tuple[str, ...] = ()


def explore(configs: str, *, links: bool = True, pops: int = 0, crashes: int = 0, without: str = "") -> Found:
    """Let one worker for each letter of ``configs`` register and train, in every order."""
    start = Moment(tuple(map(Worker, configs)), pops=pops, crashes=crashes)
    came_from: dict[Moment, tuple[Moment, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        moment = queue.popleft()
        if broken := _harm(moment):
            return Found(len(came_from), broken, tuple(_way(came_from, moment)))
        for what, changed in _steps(moment, links, without):
            after = _renumbered(changed)
            if after not in came_from:
                came_from[after] = (moment, what)
                queue.append(after)
    return Found(len(came_from))


def _way(came_from: dict[Moment, tuple[Moment, str] | None], moment: Moment) -> list[str]:
    way = []
    while before := came_from[moment]:
        moment, what = before
        way.append(what)
    return way[::-1]


def _harm(moment: Moment) -> str:
    for config in "ab":
        keys = sorted(key for its, key in moment.keys if its == config)
        if len(keys) > 1:
            return f"configuration {config} has the keys {keys}"
        for key in keys:
            if any(other != config for other, taken in moment.keys if taken == key):
                return f"two configurations have the key {key}"
    for key, _ in moment.runs:
        if len({config for its, config in moment.runs if its == key}) > 1:
            return f"the runs of two configurations are mixed in {key}"
    return ""


def _steps(moment: Moment, links: bool, without: str) -> Iterator[tuple[str, Moment]]:
    for place, worker in enumerate(moment.workers):
        for what, after, changed in _work(moment, worker, links, without):
            yield f"a worker with {worker.config} {what}", _with(changed, place, after)
        if moment.crashes and worker.at != "look":
            after = moment._replace(crashes=moment.crashes - 1)
            yield f"a worker with {worker.config} is killed", _with(after, place, Worker(worker.config))
    if moment.pops:
        yield from _pop(moment, without)


def _with(moment: Moment, place: int, worker: Worker) -> Moment:
    return moment._replace(workers=tuple(sorted((*moment.workers[:place], worker, *moment.workers[place + 1 :]))))


def _work(moment: Moment, worker: Worker, links: bool, without: str) -> Iterator[tuple[str, Worker, Moment]]:
    name, config = worker.name, worker.config
    held = moment.held(name)
    if worker.at == "look":
        yield f"looks at {name}: {held or 'nothing'}", _looked(worker, held, without), moment
    elif worker.at == "create" and held:
        yield f"finds {name} taken", worker._replace(at="look"), moment
    elif worker.at == "create" and links:
        yield f"creates {name}", worker._replace(at="train"), _put(moment, name, config)
    elif worker.at == "create":
        after = worker._replace(at="fill", file=len(moment.files))
        yield f"creates {name}, empty so far", after, _put(moment, name, EMPTY)
    elif worker.at == "train":
        keys = moment.keys | {(config, name)}
        yield f"has the key {name}", worker._replace(at="commit"), moment._replace(keys=keys)
    elif worker.at == "commit":
        yield f"trains {name}", worker._replace(at="end"), _commit(moment, name, config, without)
    elif worker.at != "end":
        yield _without_links(moment, worker, held)


def _without_links(moment: Moment, worker: Worker, held: str) -> tuple[str, Worker, Moment]:
    name, config = worker.name, worker.config
    if worker.at == "fill":
        files = (*moment.files[: worker.file], config, *moment.files[worker.file + 1 :])
        return f"fills what it created as {name}", worker._replace(at="read", file=0), moment._replace(files=files)
    if worker.at == "read":
        after = worker._replace(at="train" if held == config else "look")
        return f"reads {name} back: {held or 'nothing'}", after, moment
    if worker.at == "wait":
        is_empty = held == EMPTY
        after = worker._replace(at="move" if is_empty else "look")
        return f"finds {name} {'still empty' if is_empty else 'changed'}", after, moment
    if worker.at == "move":
        moved = dict(moment.names).get(name, 0)
        names = tuple(pair for pair in moment.names if pair[0] != name)
        return f"moves {name} aside", worker._replace(at="put back", file=moved), moment._replace(names=names)
    content = moment.files[worker.file]
    changed = _put(moment, name, content) if content in ("a", "b") and not held else moment
    return f"puts {name} back if it was whole", worker._replace(at="look", file=0), changed


def _renumbered(moment: Moment) -> Moment:
    """The same with files counted anew, less those that have no name any more and nobody holds open."""
    named = [number for _, number in moment.names]
    used = list(dict.fromkeys([0, *named, *(worker.file for worker in moment.workers)]))
    new = {old: number for number, old in enumerate(used)}
    return moment._replace(
        workers=tuple(worker._replace(file=new[worker.file]) for worker in moment.workers),
        names=tuple((name, new[number]) for name, number in moment.names),
        files=tuple(moment.files[old] for old in used),
    )


def _looked(worker: Worker, held: str, without: str) -> Worker:
    if not held:
        return worker._replace(at="create")
    if held == worker.config:
        return worker._replace(at="train")
    if held == EMPTY and without != "14 empty file":
        return worker._replace(at="wait")
    return worker._replace(name=f"s.{worker.config}")


def _put(moment: Moment, name: str, content: str) -> Moment:
    names = (*(pair for pair in moment.names if pair[0] != name), (name, len(moment.files)))
    return moment._replace(names=tuple(sorted(names)), files=(*moment.files, content))


def _commit(moment: Moment, key: str, config: str, without: str) -> Moment:
    """Adopt what the listing of ``key`` shows, and commit; whose that is, ``_harm`` asks."""
    begins = key if without == "13 glob" else f"{key}\0"
    adopted = {its for other, its in moment.runs if f"{other}\0".startswith(begins)}
    return moment._replace(runs=tuple(sorted({*moment.runs, *((key, its) for its in {*adopted, config})})))


def _pop(moment: Moment, without: str) -> Iterator[tuple[str, Moment]]:
    """Pop the run with the short key: a tombstone hides its commits, its name stays taken."""
    runs = tuple(pair for pair in moment.runs if pair[0] != "s")
    names = tuple(pair for pair in moment.names if pair[0] != "s" or without != "13 name freed")
    if moment.held("s") in ("a", "b"):
        yield "a person pops s", moment._replace(runs=runs, names=names, pops=moment.pops - 1)
