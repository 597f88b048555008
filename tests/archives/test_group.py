"""Stores that a group shares, written by two real users whose umask lets nobody else in."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from jimmy_manager import Manager, Store, modes
from jimmy_manager.archives import audit, sharing
from jimmy_manager.archives.disk import Disk
from jimmy_manager.errors import StoreError
from tests.archives.runs import filling
from tests.archives.users import ANNA, BERT, GROUP, STRANGER, interpreter, run_as, shared_place

TRAIN = """
import os, sys
from jimmy_manager import Manager

class Line(Manager):
    def train(self):
        if self.epoch == 2 and "stop" in sys.argv:
            os.kill(os.getpid(), 15)
    def eval(self):
        return {"loss": 1.0 / (1 + self.epoch)}
    def init_ckpt(self):
        super().init_ckpt()
        self.ckpt["by"] = os.geteuid()

manager = Line("store", {"lr": 0.1}, verbose=False, device="cpu", shared="group")
report = manager.batch([{"lr": 0.1}], 4)
print(len(report.done), report.stopped, manager.epoch, manager.ckpt.get("by"))
"""


@pytest.fixture
def place() -> Iterator[Path]:
    with shared_place() as folder:
        interpreter()
        yield folder


@pytest.fixture
def umask_077() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def modes_below(root: Path) -> dict[str, int]:
    every = [root, *root.rglob("*")]
    return {str(path.relative_to(root)): stat.S_IMODE(path.lstat().st_mode) for path in every}


def check_all_shared(root: Path) -> None:
    for name, mode in modes_below(root).items():
        assert mode == (0o2770 if (root / name).is_dir() else 0o660), (name, oct(mode))


# ---- what is made


def test_everything_that_a_shared_disk_makes_lets_the_group_in_whatever_the_umask(
    tmp_path: Path, umask_077: None
) -> None:
    files = Disk(tmp_path / "store", shared=True)
    assert files.create("store.yaml", b"1")
    files.replace("stats/ab/abcdef12.g1.json", b"2")
    files.write("ckpts/ab/abcdef12.g1.c1.pt", filling(b"3"))
    files.copy("ckpts/ab/abcdef12.g1.c1.pt", "ckpts/ab/abcdef12.g2.c0.pt")
    files.move("stats/ab/abcdef12.g1.json", "damaged/stats/ab/x")
    with files.lock("lock", 1.0):
        assert modes_below(tmp_path / "store")["lock"] == 0o660
    check_all_shared(tmp_path / "store")


def test_so_does_what_is_made_where_the_file_system_has_no_links(
    tmp_path: Path, umask_077: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    files = Disk(tmp_path / "store", shared=True)
    assert files.create("store.yaml", b"1")
    files.copy("store.yaml", "copy")
    check_all_shared(tmp_path / "store")


def test_without_sharing_the_umask_decides(tmp_path: Path, umask_077: None) -> None:
    """The broken twin: what the tests above look for is missing here."""
    Disk(tmp_path / "store").create("stats/ab/x.json", b"1")
    assert set(modes_below(tmp_path / "store").values()) == {0o700, 0o600}


def test_a_file_has_its_mode_before_it_has_its_name(
    tmp_path: Path, umask_077: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def watch(source: str, target: str) -> None:
        seen.append(stat.S_IMODE(os.stat(source).st_mode))
        rename(source, target)

    rename = os.rename
    monkeypatch.setattr(os, "rename", watch)
    Disk(tmp_path / "store", shared=True).replace("stats/x.json", b"1")
    assert seen == [0o2770, 0o2770, 0o660]


def test_a_directory_that_another_process_made_first_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "made").mkdir()
    (tmp_path / "made/full").touch()
    with pytest.raises(FileExistsError):
        modes.make_folder(str(tmp_path / "made"))
    assert [path.name for path in tmp_path.iterdir()] == ["made"]


def test_a_directory_of_another_user_that_is_not_set_group_id_is_refused(place: Path) -> None:
    """What is made in it would belong to another group."""
    os.mkdir(place / "store")
    os.chown(place / "store", BERT[0], GROUP)
    os.chmod(place / "store", 0o770)
    made = run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group")
    assert (made.returncode, "cannot share" in made.stderr) == (1, True)
    os.chmod(place / "store", 0o2775)
    assert run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group").returncode == 0


# ---- the store


def test_a_store_remembers_that_it_is_shared(tmp_path: Path, umask_077: None) -> None:
    made = Store(tmp_path / "store", shared="group")
    made.register({"lr": 0.1})
    later = Store(tmp_path / "store")
    assert later.info.shared == "group"
    later.register({"lr": 0.2})
    check_all_shared(tmp_path / "store")


def test_a_worker_that_began_before_somebody_made_the_store_shares_what_it_makes(
    tmp_path: Path, umask_077: None
) -> None:
    early = Store(tmp_path / "store")
    Store(tmp_path / "store", shared="group").register({"lr": 0.1})
    early.register({"lr": 0.2})
    check_all_shared(tmp_path / "store")


def test_a_store_that_is_not_shared_does_not_become_so_by_the_way(tmp_path: Path) -> None:
    Store(tmp_path / "store").register({"lr": 0.1})
    with pytest.raises(StoreError, match=r"jimmy init .* --shared group"):
        Manager(tmp_path / "store", shared="group")
    with pytest.raises(ValueError, match="'group' or empty"):
        Store(tmp_path / "other", shared="world")


# ---- what is there already


def test_check_names_what_keeps_the_group_out_and_mends_it(tmp_path: Path, umask_077: None) -> None:
    store = Store(tmp_path / "store", shared="group")
    store.register({"lr": 0.1})
    assert audit.check(tmp_path / "store") == ([], [])
    (tmp_path / "store/logs").mkdir()
    (tmp_path / "store/logs/events").touch()
    (tmp_path / "store/configs").chmod(0o770)
    findings, _ = audit.check(tmp_path / "store")
    assert {(each.kind, each.name) for each in findings} == {
        ("mode", "logs"), ("mode", "logs/events"), ("mode", "configs")
    }  # fmt: skip
    _, repairs = audit.check(tmp_path / "store", fix=True)
    assert {done.outcome for done in repairs} == {"share"}
    assert audit.check(tmp_path / "store") == ([], [])
    check_all_shared(tmp_path / "store")


def test_check_names_files_of_a_wrong_group(place: Path) -> None:
    store = place / "store"
    assert run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group").returncode == 0
    os.chown(store / "store.yaml", ANNA[0], STRANGER[1])
    assert [each.why for each in sharing.wrong(str(store))] == ["belongs to the group 54003 instead of 54000"]
    assert sharing.mend(str(store), "store.yaml")
    assert list(sharing.wrong(str(store))) == []


# ---- two users


def test_a_second_user_resumes_the_run_of_a_first_one(place: Path) -> None:
    first = run_as(ANNA, place, "-c", TRAIN, "stop")
    assert first.stdout.split() == ["0", "SIGTERM", "3", str(ANNA[0])], first.stderr
    second = run_as(BERT, place, "-c", TRAIN)
    assert second.stdout.split()[:1] + second.stdout.split()[-2:] == ["1", "4", str(ANNA[0])], second.stderr
    check_all_shared(place / "store")
    owners = {path.stat().st_uid for path in (place / "store").rglob("*") if path.is_file()}
    assert owners == {ANNA[0], BERT[0]}
    assert {path.stat().st_gid for path in (place / "store").rglob("*")} == {GROUP}
    for user in (ANNA, BERT):
        done = run_as(user, place, "-m", "jimmy_manager.cli", "check")
        assert "nothing is wrong" in done.stderr, done.stdout
    pruned = run_as(ANNA, place, "-m", "jimmy_manager.cli", "prune", "--offline")
    assert pruned.returncode == 0, pruned.stderr


def test_logs_and_checkpoints_of_a_trained_manager_are_shared(place: Path) -> None:
    from tests.manager.test_trained import JOB

    (place / "little.py").write_text(JOB)
    (place / "little.py").chmod(0o644)
    run = "import runpy, sys; sys.path.insert(0, '.'); runpy.run_path('little.py', run_name='__main__')"
    run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group")
    begun = run_as(ANNA, place, "-c", run, "store", "2")
    assert begun.stdout.startswith("2 "), begun.stderr
    resumed = run_as(BERT, place, "-c", run, "store", "4")
    assert resumed.stdout.startswith("4 "), resumed.stderr
    logs = {path.stat().st_uid for path in (place / "store/logs").rglob("*tfevents*")}
    assert logs == {ANNA[0], BERT[0]}
    check_all_shared(place / "store")


def test_without_sharing_the_second_user_is_refused(place: Path) -> None:
    """The broken twin."""
    private = TRAIN.replace(', shared="group"', "")
    run_as(ANNA, place, "-c", private, "stop")
    second = run_as(BERT, place, "-c", private)
    assert second.returncode != 0
    assert "Permission denied" in second.stderr


def test_a_stranger_is_kept_out(place: Path) -> None:
    run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group")
    os.chmod(place, 0o755)
    looked = run_as(STRANGER, place, "-m", "jimmy_manager.cli", "ls")
    assert looked.returncode != 0
    assert "not readable" in looked.stderr


def test_a_checkpoint_of_another_user_is_copied_where_links_to_it_are_refused(place: Path) -> None:
    """With protected_hardlinks=1 nobody may link what he cannot write."""
    copy = "from jimmy_manager.archives.disk import Disk; Disk('.').copy('hers', 'ours')"
    hers = place / "hers"
    hers.write_bytes(b"data")
    os.chown(hers, *ANNA)
    hers.chmod(0o640)
    done = run_as(BERT, place, "-c", copy)
    assert done.returncode == 0, done.stderr
    ours = place / "ours"
    assert ours.read_bytes() == b"data"
    if Path("/proc/sys/fs/protected_hardlinks").read_text().strip() == "1":
        assert ours.stat().st_ino != hers.stat().st_ino


def test_logs_elsewhere_are_made_as_ever(tmp_path: Path, umask_077: None) -> None:
    modes.make_folders(str(tmp_path / "a/b"))
    assert modes_below(tmp_path / "a") == {".": 0o700, "b": 0o700}
