from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager.archives import checkpoints, disk
from jimmy_manager.archives.disk import Disk
from jimmy_manager.archives.files import Content, Files, PendingWrite
from jimmy_manager.archives.memory import Memory
from jimmy_manager.archives.read_only import ReadOnly
from jimmy_manager.errors import ReadOnlyStore, StoreError
from tests.archives.runs import filling, listing, scratch_below

NAME = "stats/ab/abcdef12.g1.json"
OTHER = "stats/ab/abcdef12.g2.json"
DATA = b"one line of data\n"
Only = str | Callable[[str], bool]


@pytest.fixture(params=["durable", "not durable", "memory"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> Files:
    if request.param == "memory":
        return Memory()
    return Disk(tmp_path / "store", durable=request.param == "durable")


@pytest.fixture
def on_disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "store")


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk.time, "sleep", lambda seconds: None)


# ---- the contract, for every implementation


def check_reading(files: Files, below: Files) -> None:
    """The half of the contract that ``ReadOnly`` keeps too; ``below`` is what it reads."""
    assert files.names("stats/ab") == []
    for missing in (files.read, files.open, files.size):
        with pytest.raises(FileNotFoundError):
            missing(NAME)
    below.replace(NAME, DATA)
    below.replace("store.yaml", b"x")
    assert files.names("stats/ab") == ["abcdef12.g1.json"]
    assert files.names("stats") == ["ab"]
    assert sorted(files.names("")) == ["stats", "store.yaml"]
    assert files.names("stat") == files.names("configs/ab") == []
    assert files.read(NAME) == DATA
    assert files.size(NAME) == len(DATA)
    with files.open(NAME) as file:
        assert file.read(3) == DATA[:3]
        assert file.read() == DATA[3:]
        file.seek(0)
        assert file.read() == DATA


def test_reading(files: Files) -> None:
    check_reading(files, files)


def test_reading_through_read_only_files(files: Files) -> None:
    check_reading(ReadOnly(files), files)


def test_read_only_files_refuse_every_write_and_change_nothing(files: Files) -> None:
    files.replace(NAME, DATA)
    looked_at = ReadOnly(files)
    for write in (
        lambda: looked_at.create(OTHER, b""),
        lambda: looked_at.replace(NAME, b""),
        lambda: looked_at.write(OTHER, filling(b"")),
        lambda: looked_at.copy(NAME, OTHER),
        lambda: looked_at.move(NAME, OTHER),
        lambda: looked_at.remove(NAME),
    ):
        with pytest.raises(ReadOnlyStore, match="read-only"):
            write()
    assert files.names("stats/ab") == ["abcdef12.g1.json"]
    assert files.read(NAME) == DATA


def test_only_read_only_files_lack_a_write_of_the_protocol() -> None:
    """A write that is added to ``Files`` has to be refused here as well."""
    operations = {name for name in vars(Files) if not name.startswith("_")}
    writes = {"create", "replace", "write", "copy", "remove", "move"}
    assert operations - {"freshen"} == {"names", "read", "open", "size"} | writes
    assert operations <= {*dir(ReadOnly(Memory()))}


def test_the_first_creation_wins_and_stays(files: Files) -> None:
    assert files.create(NAME, DATA) is True
    assert files.create(NAME, b"another") is False
    assert files.read(NAME) == DATA


def test_creating_what_stands_there_to_the_letter_counts_as_won(files: Files) -> None:
    assert files.create(NAME, DATA)
    assert files.create(NAME, DATA)


def test_replacing_puts_the_new_in_place_of_the_old(files: Files) -> None:
    files.replace(NAME, DATA)
    files.replace(NAME, b"new")
    assert files.read(NAME) == b"new"
    assert files.names("stats/ab") == ["abcdef12.g1.json"]


def test_an_open_file_goes_on_showing_what_was_replaced(files: Files) -> None:
    files.replace(NAME, DATA)
    with files.open(NAME) as file:
        files.replace(NAME, b"new")
        assert file.read() == DATA


def test_writing_in_parts_returns_size_and_digest(files: Files) -> None:
    def fill(file: Any) -> None:
        for part in (b"one ", bytearray(b"line "), memoryview(b"of data\n"), b""):
            assert file.write(part) == len(part)
        file.flush()

    assert files.write(NAME, fill) == Content.of(DATA)
    assert files.read(NAME) == DATA


def test_a_writer_that_fails_leaves_nothing_and_its_own_error(files: Files, tmp_path: Path) -> None:
    def fail(file: Any) -> None:
        file.write(b"half")
        raise ZeroDivisionError("of the caller")

    files.replace(OTHER, DATA)
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        files.write(NAME, fail)
    with pytest.raises(ZeroDivisionError, match="of the caller"):
        files.write(OTHER, fail)
    assert files.names("stats/ab") == ["abcdef12.g2.json"]
    assert files.read(OTHER) == DATA


def test_a_copy_outlives_its_source(files: Files) -> None:
    files.replace(NAME, DATA)
    files.copy(NAME, "ckpts/ab/abcdef12.g2.c0.pt")
    assert files.remove(NAME) is True
    assert files.read("ckpts/ab/abcdef12.g2.c0.pt") == DATA


def test_a_copy_is_not_changed_by_replacing_its_source(files: Files) -> None:
    files.replace(NAME, DATA)
    files.copy(NAME, OTHER)
    files.replace(NAME, b"new")
    assert files.read(OTHER) == DATA


def test_copying_what_is_not_there_is_file_not_found(files: Files) -> None:
    with pytest.raises(FileNotFoundError):
        files.copy(NAME, OTHER)
    assert files.names("stats/ab") == []


def test_removing_says_whether_the_name_was_there(files: Files) -> None:
    files.replace(NAME, b"")
    assert files.remove(NAME) is True
    assert files.remove(NAME) is False
    assert files.remove("no/such/folder") is False


def test_moving_takes_the_name_along_and_forgives_a_missing_one(files: Files) -> None:
    files.replace(NAME, DATA)
    files.move(NAME, "damaged/x.json")
    assert files.read("damaged/x.json") == DATA
    assert files.names("stats/ab") == []
    files.move(NAME, "damaged/y.json")
    assert files.names("damaged") == ["x.json"]


def test_what_is_written_does_not_alias_the_callers_bytes(files: Files) -> None:
    data = bytearray(DATA)
    files.replace(NAME, bytes(data))
    files.write(OTHER, lambda file: file.write(data))
    data[0] = 0
    assert files.read(NAME) == files.read(OTHER) == DATA


def race(files: Files, name: str) -> tuple[list[bytes], bytes]:
    """Eight threads create ``name`` at once; the data of those that were told they won, and what stands there."""
    barrier, won = threading.Barrier(8), []

    def contend(data: bytes) -> None:
        barrier.wait()
        if files.create(name, data):
            won.append(data)

    threads = [threading.Thread(target=contend, args=(bytes([65 + i]) * 40,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return won, files.read(name)


def test_of_many_that_create_one_name_at_once_one_wins(files: Files) -> None:
    for number in range(20):
        won, standing = race(files, f"claims/ab/abcdef12.g{number + 1}.json")
        assert won == [standing]


class CheckThenWrite(Memory):
    """The mistake that ``create`` must not make: look first, then write."""

    def create(self, name: str, data: bytes) -> bool:
        if name.rpartition("/")[2] in self.names(name.rpartition("/")[0]):
            return False
        threading.Event().wait(0.001)
        self.replace(name, data)
        return True


def test_the_race_catches_a_creation_that_looks_first() -> None:
    won, standing = race(CheckThenWrite(), NAME)
    assert won != [standing]


# ---- Disk under errors of the operating system


class Fault:
    """Stands in for a function of ``os``: raises ``code`` at the given calls, after doing the work where ``late``."""

    def __init__(self, real: Callable[..., Any], code: int, calls: set[int], *, late: bool, only: Only) -> None:
        self.real, self.code, self.calls, self.late, self.only = real, code, calls, late, only
        self.count = self.hits = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        path = os.readlink(f"/proc/self/fd/{args[0]}") if isinstance(args[0], int) else str(args[0])
        if not (self.only in path if isinstance(self.only, str) else self.only(path)):
            return self.real(*args, **kwargs)
        self.count += 1
        if self.calls and self.count not in self.calls:
            return self.real(*args, **kwargs)
        self.hits += 1
        if self.late:
            self.real(*args, **kwargs)
        raise OSError(self.code, os.strerror(self.code), str(args[0]))


@pytest.fixture
def inject(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Fault]]:
    """``inject('rename', errno.EIO)``: every call fails; ``calls={2}``: the second; ``late``: its reply is lost."""
    made: list[Fault] = []

    def put(function: str, code: int, *, calls: set[int] | None = None, late: bool = False, only: Only = "") -> Fault:
        fault = Fault(getattr(os, function), code, calls or set(), late=late, only=only)
        monkeypatch.setattr(disk.os, function, fault)
        made.append(fault)
        return fault

    yield put
    assert all(fault.hits for fault in made), "an injected error was never met: the test proves nothing"


def below(store: Disk) -> Path:
    return Path(store.root)


def check_message(error: BaseException, path: str, code: int) -> None:
    assert path in str(error)
    assert os.strerror(code) in str(error)
    assert isinstance(error, OSError)
    assert error.errno == code


@pytest.mark.parametrize("code", [errno.EPERM, errno.EEXIST, errno.EIO, errno.EACCES])
def test_whatever_the_error_says_the_name_decides_a_lost_race(on_disk: Disk, inject: Any, code: int) -> None:
    on_disk.create(NAME, b"first")
    inject("link", code)
    assert on_disk.create(NAME, b"second") is False
    assert on_disk.read(NAME) == b"first"
    assert scratch_below(below(on_disk)) == []


@pytest.mark.parametrize("code", [errno.EPERM, errno.EEXIST, errno.EIO, errno.ETIMEDOUT, errno.ENOENT, errno.ESTALE])
def test_a_link_whose_reply_was_lost_is_a_win(on_disk: Disk, inject: Any, code: int) -> None:
    inject("link", code, late=True)
    assert on_disk.create(NAME, DATA) is True
    assert on_disk.read(NAME) == DATA
    assert scratch_below(below(on_disk)) == []


def test_a_name_that_is_taken_but_not_visible_here_is_lost(on_disk: Disk, inject: Any) -> None:
    inject("link", errno.EEXIST)
    assert on_disk.create(NAME, DATA) is False


@pytest.mark.parametrize(
    "code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EXDEV, errno.EACCES, errno.EINVAL]
)
def test_without_hard_links_one_wins_by_an_exclusive_open(on_disk: Disk, inject: Any, code: int) -> None:
    inject("link", code)
    won, standing = race(on_disk, NAME)
    assert won == [standing]
    assert on_disk.create(NAME, standing) is True
    assert on_disk.create(NAME, b"later") is False
    assert scratch_below(below(on_disk)) == []


def test_the_fallback_never_frees_a_name_again(on_disk: Disk, inject: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    inject("link", errno.EPERM)
    on_disk.create(OTHER, DATA)
    real = disk._write_all

    def full(file: Any, data: bytes) -> None:
        if hasattr(file, "fileno") and "/." not in os.readlink(f"/proc/self/fd/{file.fileno()}"):
            real(file, data[:4])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, data)

    monkeypatch.setattr(disk, "_write_all", full)
    with pytest.raises(StoreError) as caught:
        on_disk.create(NAME, DATA)
    check_message(caught.value, on_disk.path(NAME), errno.ENOSPC)
    assert on_disk.read(NAME) == DATA[:4], "somebody may have seen the name taken"
    assert scratch_below(below(on_disk)) == []


def test_the_fallback_notices_that_its_name_was_moved_aside_meanwhile(
    on_disk: Disk, inject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject("link", errno.EPERM)
    real = on_disk._sync

    def slow(file: Any) -> None:
        real(file)
        if on_disk.names("stats/ab") == ["abcdef12.g1.json"] or (below(on_disk) / NAME).exists():
            on_disk.move(NAME, "damaged/x")

    monkeypatch.setattr(on_disk, "_sync", slow)
    assert on_disk.create(NAME, DATA) is False


def test_an_error_of_a_link_that_was_not_made_names_path_and_cause(on_disk: Disk, inject: Any) -> None:
    inject("link", errno.EIO)
    with pytest.raises(StoreError) as caught:
        on_disk.create(NAME, DATA)
    check_message(caught.value, on_disk.path(NAME), errno.EIO)
    assert listing(below(on_disk)).keys() == {".", "stats", "stats/ab"}


def test_a_creation_that_cannot_be_decided_is_an_error_not_a_loss(on_disk: Disk, inject: Any) -> None:
    on_disk.create(NAME, DATA)
    inject("link", errno.EEXIST)
    inject("open", errno.EIO, only=NAME)
    with pytest.raises(StoreError) as caught:
        on_disk.create(NAME, b"other")
    check_message(caught.value, on_disk.path(NAME), errno.EIO)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS])
@pytest.mark.parametrize("function", ["fsync", "open", "rename"])
def test_a_write_that_fails_says_where_and_why_and_leaves_the_old_and_no_scratch(
    on_disk: Disk, inject: Any, code: int, function: str
) -> None:
    on_disk.replace(NAME, DATA)
    before = listing(below(on_disk)).keys()
    for write in (lambda: on_disk.replace(NAME, b"new"), lambda: on_disk.write(OTHER, filling(b"new"))):
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(getattr(os, function), code, set(), late=False, only="/.abcdef12.g")
            patch.setattr(disk.os, function, fault)
            with pytest.raises(StoreError) as caught:
                write()
            assert fault.hits
        check_message(caught.value, f"{on_disk.root}/stats/ab/", code)
        assert not isinstance(caught.value, PendingWrite)
    assert listing(below(on_disk)).keys() == before
    assert on_disk.read(NAME) == DATA
    on_disk.replace(NAME, b"later")
    assert on_disk.read(NAME) == b"later"


class Cramped:
    """A raw file on a disk that takes ``room`` bytes and then raises ``code``; takes ``most`` bytes a call."""

    def __init__(self, file: Any, room: int, code: int, most: int) -> None:
        self.file, self.room, self.code, self.most = file, room, code, most

    def write(self, data: Any) -> int:
        if self.room <= 0:
            raise OSError(self.code, os.strerror(self.code))
        taken: int = self.file.write(bytes(data[: min(self.room, self.most)]))
        self.room -= taken
        return taken

    def __getattr__(self, name: str) -> Any:
        return getattr(self.file, name)


@pytest.fixture
def cramped(monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int, int], None]:
    real = disk._write_all
    rooms: dict[int, Cramped] = {}

    def prepare(room: int, code: int, most: int) -> None:
        def write_all(file: Any, data: bytes) -> None:
            real(rooms.setdefault(id(file), Cramped(file, room, code, most)), data)  # type: ignore[arg-type]

        rooms.clear()
        monkeypatch.setattr(disk, "_write_all", write_all)

    return prepare


def test_short_writes_are_continued(on_disk: Disk, cramped: Any) -> None:
    cramped(10**6, errno.ENOSPC, 3)
    assert on_disk.create(NAME, DATA)
    on_disk.replace(OTHER, DATA * 10)
    assert on_disk.read(NAME) == DATA
    assert on_disk.read(OTHER) == DATA * 10


def test_a_write_that_does_not_go_on_after_a_short_one_would_be_caught(
    on_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(disk, "_write_all", lambda file, data: file.write(bytes(data[:3])))
    on_disk.replace(NAME, DATA)
    assert on_disk.read(NAME) != DATA


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
@pytest.mark.parametrize("room", [0, 1, 60, 500, 1400])
def test_a_full_disk_under_torch_tells_its_own_cause(on_disk: Disk, cramped: Any, code: int, room: int) -> None:
    import torch

    cramped(room, code, 10**6)
    with pytest.raises(StoreError) as caught:
        on_disk.write(NAME, lambda file: checkpoints.save({"w": torch.ones(100)}, file))
    check_message(caught.value, on_disk.path(NAME), code)
    assert scratch_below(below(on_disk)) == []


def test_advice_stands_in_the_message_once(on_disk: Disk, cramped: Any) -> None:
    cramped(3, errno.ENOSPC, 10**6)
    with pytest.raises(StoreError) as caught:
        on_disk.replace(NAME, DATA)
    assert str(caught.value).count("free some space") == 1


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOENT, errno.ESTALE, errno.ETIMEDOUT])
def test_a_rename_whose_reply_was_lost_took_place(on_disk: Disk, inject: Any, code: int) -> None:
    on_disk.replace(NAME, b"old")
    fault = inject("rename", code, late=True, calls={1})
    on_disk.replace(NAME, DATA)
    assert on_disk.read(NAME) == DATA
    fault.calls = {2}
    assert on_disk.write(OTHER, filling(DATA)) == Content.of(DATA)
    assert on_disk.read(OTHER) == DATA
    assert fault.hits == 2


def test_a_rename_that_failed_over_equal_names_is_not_taken_for_done(on_disk: Disk, inject: Any) -> None:
    on_disk.write(NAME, filling(b"older state"))
    inject("rename", errno.EIO)
    with pytest.raises(StoreError):
        on_disk.write(NAME, filling(DATA))
    assert on_disk.read(NAME) == b"older state"


@pytest.mark.parametrize("operation", ["create", "replace", "write"])
def test_scratch_that_a_janitor_took_is_written_again(
    on_disk: Disk, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    if operation != "create":
        on_disk.replace(NAME, b"an older state, which must not pass for the new one")
    taken = []
    for function in ("link", "rename"):
        real = getattr(os, function)

        def take(source: str, target: str, real: Any = real) -> None:
            if not taken:
                taken.append(source)
                os.unlink(source)
            real(source, target)

        monkeypatch.setattr(disk.os, function, take)
    assert {
        "create": lambda: on_disk.create(NAME, DATA),
        "replace": lambda: on_disk.replace(NAME, DATA) is None,
        "write": lambda: on_disk.write(NAME, filling(DATA)) == Content.of(DATA),
    }[operation]()
    assert taken
    assert on_disk.read(NAME) == DATA
    assert scratch_below(below(on_disk)) == []


def test_a_folder_that_is_taken_all_the_time_is_an_error_in_the_end(on_disk: Disk, inject: Any) -> None:
    fault = inject("rename", errno.ENOENT)
    with pytest.raises(StoreError) as caught:
        on_disk.replace(NAME, DATA)
    check_message(caught.value, on_disk.path(NAME), errno.ENOENT)
    assert 1 < fault.hits < 10


def test_a_rename_that_may_still_come_is_a_pending_write(on_disk: Disk, inject: Any) -> None:
    on_disk.replace(NAME, b"old")
    inject("rename", errno.EIO)
    inject("unlink", errno.EIO)
    for write in (lambda: on_disk.replace(NAME, DATA), lambda: on_disk.write(OTHER, filling(DATA))):
        with pytest.raises(PendingWrite) as caught:
            write()
        check_message(caught.value, f"{on_disk.root}/stats/ab/", errno.EIO)
    assert on_disk.read(NAME) == b"old"


def test_a_folder_that_cannot_be_made_durable_raises_though_the_file_is_visible(on_disk: Disk, inject: Any) -> None:
    on_disk.replace(OTHER, b"")
    inject("fsync", errno.EIO, only=lambda path: path.endswith("stats/ab"))
    for number, write in enumerate(
        [
            lambda name: on_disk.create(name, DATA),
            lambda name: on_disk.replace(name, DATA),
            lambda name: on_disk.write(name, filling(DATA)),
            lambda name: on_disk.copy(OTHER, name),
        ]
    ):
        name = f"stats/ab/abcdef12.g{number + 3}.json"
        with pytest.raises(StoreError, match="make durable") as caught:
            write(name)
        check_message(caught.value, f"{on_disk.root}/stats/ab", errno.EIO)
        assert on_disk.read(name) == (b"" if number == 3 else DATA)
    assert scratch_below(below(on_disk)) == []


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_fsync_of_folders_is_no_error(on_disk: Disk, inject: Any, code: int) -> None:
    inject("fsync", code, only=os.path.isdir)
    on_disk.replace(NAME, DATA)
    assert on_disk.read(NAME) == DATA


@pytest.mark.parametrize("durable", [True, False])
def test_durable_writes_sync_file_then_folder_and_others_sync_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    on_disk = Disk(tmp_path, durable=durable)
    on_disk.replace(OTHER, b"")
    synced, real = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name.rpartition(".")[0])
        real(descriptor)

    monkeypatch.setattr(disk.os, "fsync", note)
    on_disk.replace(NAME, DATA)
    assert synced == ([".abcdef12.g1.json", ""] if durable else [])


def test_new_folders_are_made_durable_in_the_folder_above(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, real = [], os.fsync

    def note(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        real(descriptor)

    monkeypatch.setattr(disk.os, "fsync", note)
    Disk(tmp_path / "store").replace(NAME, DATA)
    assert synced[:3] == [str(tmp_path), str(tmp_path / "store"), str(tmp_path / "store/stats")]


def test_scratch_that_cannot_be_removed_after_a_creation_is_harmless(
    on_disk: Disk, inject: Any, caplog: pytest.LogCaptureFixture
) -> None:
    inject("unlink", errno.EACCES)
    assert on_disk.create(NAME, DATA) is True
    assert "cannot remove" in caplog.text
    assert on_disk.read(NAME) == DATA


def test_scratch_that_cannot_be_removed_is_noted_with_the_first_error(on_disk: Disk, inject: Any) -> None:
    inject("fsync", errno.ENOSPC, only="/.abcdef")
    inject("unlink", errno.EACCES)
    with pytest.raises(StoreError) as caught:
        on_disk.replace(NAME, DATA)
    check_message(caught.value, on_disk.path(NAME), errno.ENOSPC)
    noted = [*caught.value.__notes__] if hasattr(caught.value, "__notes__") else [*caught.value.__cause__.__notes__]
    assert "cannot remove" in noted[0]


@pytest.mark.parametrize("operation", ["names", "read", "size", "replace"])
def test_a_stale_handle_is_asked_again_within_bounds(on_disk: Disk, inject: Any, operation: str) -> None:
    on_disk.replace(NAME, DATA)
    function = {"names": "listdir", "read": "open", "size": "stat", "replace": "rename"}[operation]
    fault = inject(function, errno.ESTALE, calls={1, 2})
    call = {
        "names": lambda: on_disk.names("stats/ab"),
        "read": lambda: on_disk.read(NAME),
        "size": lambda: on_disk.size(NAME),
        "replace": lambda: on_disk.replace(NAME, b"new"),
    }[operation]
    call()
    assert fault.hits == 2
    fault.calls = set()
    with pytest.raises(OSError, match=os.strerror(errno.ESTALE)):
        call()
    assert fault.hits < 12


def test_a_folder_that_was_missing_once_is_listed_as_soon_as_it_is_there(
    on_disk: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing: set[str] = set()
    listdir = os.listdir

    def remembering(folder: str) -> list[str]:
        """What NFS answers: a name that was missing stays so until the folder that it is in is listed."""
        if folder in missing:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), folder)
        try:
            found = listdir(folder)
        except FileNotFoundError:
            missing.add(folder)
            raise
        missing.difference_update({each for each in missing if os.path.dirname(each) == folder.rstrip("/")})
        return found

    on_disk.replace("store.yaml", b"x")
    monkeypatch.setattr(disk.os, "listdir", remembering)
    assert on_disk.names("stats/ab") == []
    assert {path.removeprefix(on_disk.root) for path in missing} >= {"/stats/ab"}
    on_disk.replace(NAME, DATA)
    assert on_disk.names("stats/ab") == ["abcdef12.g1.json"]


def test_a_listing_that_fails_is_an_error_and_never_an_empty_folder(on_disk: Disk, inject: Any) -> None:
    on_disk.replace(NAME, DATA)
    inject("listdir", errno.EIO)
    with pytest.raises(StoreError) as caught:
        on_disk.names("stats/ab")
    check_message(caught.value, f"{on_disk.root}/stats/ab", errno.EIO)


def test_a_link_that_the_system_refuses_becomes_a_copy(on_disk: Disk, inject: Any) -> None:
    on_disk.replace(NAME, DATA)
    inject("link", errno.EPERM)  # protected_hardlinks=1
    on_disk.copy(NAME, OTHER)
    assert on_disk.read(OTHER) == DATA
    assert (below(on_disk) / OTHER).stat().st_ino != (below(on_disk) / NAME).stat().st_ino


def test_a_link_to_a_copy_whose_reply_was_lost_is_no_error(on_disk: Disk, inject: Any) -> None:
    on_disk.replace(NAME, DATA)
    inject("link", errno.EEXIST, late=True)
    on_disk.copy(NAME, OTHER)
    assert on_disk.read(OTHER) == DATA
    assert scratch_below(below(on_disk)) == []


def test_a_source_that_cannot_be_opened_is_named(on_disk: Disk, monkeypatch: pytest.MonkeyPatch, inject: Any) -> None:
    on_disk.replace(NAME, DATA)
    inject("link", errno.EPERM)

    def refuse(name: str) -> Any:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), name)

    monkeypatch.setattr(on_disk, "open", refuse)
    with pytest.raises(StoreError, match="cannot read") as caught:
        on_disk.copy(NAME, OTHER)
    check_message(caught.value, on_disk.path(NAME), errno.EACCES)


def test_a_source_that_cannot_be_read_is_named_in_the_error_of_its_copy(
    on_disk: Disk, inject: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk.replace(NAME, DATA)
    inject("link", errno.EPERM)

    class Unreadable:
        def __enter__(self) -> Unreadable:
            return self

        def __exit__(self, *args: object) -> None:
            pass

        def read(self, size: int) -> bytes:
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(on_disk, "open", lambda name: Unreadable())
    with pytest.raises(StoreError, match="cannot read") as caught:
        on_disk.copy(NAME, OTHER)
    check_message(caught.value, on_disk.path(NAME), errno.EIO)
    assert on_disk.names("stats/ab") == ["abcdef12.g1.json"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600), (0o007, 0o660)])
def test_modes_follow_the_umask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int, mode: int) -> None:
    before = os.umask(umask)
    try:
        on_disk = Disk(tmp_path / "store")
        on_disk.create("claims/ab/abcdef12.g1.json", DATA)
        on_disk.replace(NAME, DATA)
        on_disk.write("ckpts/ab/abcdef12.g1.c1.pt", filling(DATA))
        with monkeypatch.context() as patch:
            patch.setattr(disk.os, "link", Fault(os.link, errno.EPERM, set(), late=False, only=""))
            on_disk.create("claims/ab/abcdef12.g2.json", DATA)
            on_disk.copy(NAME, "stats/ab/abcdef12.g2.json")
    finally:
        os.umask(before)
    made = [path for path in below(on_disk).rglob("*") if path.is_file()]
    assert len(made) == 5
    assert {stat.S_IMODE(path.stat().st_mode) for path in made} == {mode}
    assert {stat.S_IMODE(path.stat().st_mode) & 0o777 for path in below(on_disk).rglob("*") if path.is_dir()} == {
        0o777 & ~umask
    }


def test_a_store_stays_where_it_is_when_the_job_changes_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    on_disk = Disk("store")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    on_disk.replace(NAME, DATA)
    assert (tmp_path / "store" / NAME).read_bytes() == DATA


def test_a_file_where_a_folder_should_be_is_an_error_with_its_path(on_disk: Disk) -> None:
    on_disk.replace("stats", b"not a folder")
    with pytest.raises(StoreError, match=r"stats/ab"):
        on_disk.replace(NAME, DATA)
    assert on_disk.names("stats/ab") == []


KILLED = """
import os, sys
from jimmy_manager.archives.disk import Disk
def fill(file):
    file.write(b"half of it")
    os.kill(os.getpid(), 9)
Disk(sys.argv[1]).write("stats/ab/abcdef12.g1.json", fill)
"""


def test_a_writer_that_is_killed_leaves_the_old_and_nothing_half_written(on_disk: Disk) -> None:
    on_disk.replace(NAME, DATA)
    result = subprocess.run([sys.executable, "-c", KILLED, on_disk.root], cwd=Path(disk.__file__).parents[2])
    assert result.returncode == -9
    assert on_disk.read(NAME) == DATA
    assert len(scratch_below(below(on_disk))) == 1
