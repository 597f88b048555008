"""The doctor on one node, on places that are fit for a store and on such that are not."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from jimmy_manager import Store
from jimmy_manager.archives import filesystem
from jimmy_manager.archives.filesystem import Mount
from jimmy_manager.cluster import doctor, machine, prescription, racer
from jimmy_manager.cluster.place import Place
from jimmy_manager.cluster.races import Tally
from jimmy_manager.cluster.remark import Remark
from jimmy_manager.errors import StoreError
from tests.archives.users import ANNA, STRANGER, interpreter, run_as, shared_place

FINE = [Tally(kind, 50, 50, 0, 0, 30, {}) for kind in racer.KINDS]
BROKEN = Tally("link", 50, 48, 0, 2, 30, {})
REFUSED = Tally("link", 50, 0, 50, 0, 30, {"ENOTSUP": 150})


def no_race(place: Place) -> list[Tally]:
    return FINE


@pytest.fixture(autouse=True)
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "_torch", lambda: iter(()))


def examined(directory: Path, **more: object) -> dict[str, list[Remark]]:
    found: dict[str, list[Remark]] = {}
    for remark in doctor.examine(str(directory), **({"race": no_race} | more)):  # type: ignore[arg-type]
        found.setdefault(remark.subject, []).append(remark)
    return found


def levels(found: dict[str, list[Remark]]) -> dict[str, str]:
    return {subject: remark.level for subject, remarks in found.items() for remark in remarks}


def everything(root: Path) -> list[str]:
    return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


def test_a_good_place_is_all_well_before_a_store_is_there_and_stays_as_it_is(tmp_path: Path) -> None:
    found = examined(tmp_path / "not/yet")
    assert not [remark for remarks in found.values() for remark in remarks if remark.level == "problem"]
    assert {"python", "store", "umask", "file system", "space", "inodes", "permissions", "links", "fsync", "clock",
            "claims", "two nodes"} <= found.keys()  # fmt: skip
    assert everything(tmp_path) == []


def test_a_store_is_left_as_it_was(tmp_path: Path) -> None:
    Store(tmp_path / "s").register({"lr": 0.1})
    before = everything(tmp_path)
    found = examined(tmp_path / "s")
    assert "keys of 8 digits" in found["store"][0].text
    assert everything(tmp_path) == before


def test_so_is_it_after_ctrl_c(tmp_path: Path) -> None:
    def interrupt(place: Place) -> list[Tally]:
        assert place.root.startswith(str(tmp_path / ".doctor"))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        examined(tmp_path, race=interrupt)
    assert everything(tmp_path) == []


def test_what_a_killed_doctor_left_goes_after_an_hour(tmp_path: Path) -> None:
    for name in ("alone-old", "alone-new", "room-x"):
        Place(tmp_path).below(".doctor").below(name).make().put("file", b"x")
    for name in ("alone-old", "room-x"):
        os.utime(tmp_path / ".doctor" / name, (1e9, 1e9))
    examined(tmp_path)
    assert sorted(os.listdir(tmp_path / ".doctor")) == ["alone-new", "room-x"]


def test_processes_of_this_host_really_race(tmp_path: Path) -> None:
    found = racer.race(Place(tmp_path), processes=2, rounds=10)
    counted = [(each.kind, each.rounds, each.one, each.more) for each in found]
    assert counted == [("link", 10, 10, 0), ("open", 10, 10, 0)]


def test_two_winners_on_one_host_forbid_to_train(tmp_path: Path) -> None:
    (claims,) = examined(tmp_path, race=lambda place: [BROKEN, FINE[1]])["claims"]
    assert (claims.level, claims.forbids) == ("problem", True)
    assert "2 had several" in claims.text


def test_without_links_the_exclusive_opening_counts(tmp_path: Path) -> None:
    (claims,) = examined(tmp_path, race=lambda place: [REFUSED, FINE[1]])["claims"]
    assert (claims.level, claims.forbids) == ("ok", False)
    assert "O_EXCL" in claims.text
    (claims,) = examined(tmp_path, race=lambda place: [REFUSED, BROKEN._replace(kind="open")])["claims"]
    assert claims.forbids


class NoLink(Place):
    def link(self, source: str, name: str, data: bytes) -> str:
        return "EPERM"


class OldContent(Place):
    def read(self, name: str) -> bytes | None:
        return b"1"


def test_what_a_file_system_lacks_is_told(tmp_path: Path) -> None:
    assert levels(examined(tmp_path, kind=NoLink))["links"] == "note"
    (permissions,) = examined(tmp_path, kind=OldContent)["permissions"]
    assert permissions.forbids


def test_a_full_disk_and_a_quota_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Place):
        def put(self, name: str, data: bytes) -> None:
            if len(data) > 4096:
                raise StoreError("cannot write trial: Disk quota exceeded")
            super().put(name, data)

    real = os.statvfs(tmp_path)

    def little(path: str) -> os.statvfs_result:
        return os.statvfs_result((real[0], 4096, real[2], 100, 100, real[5], 10, 10, *real[8:]))

    monkeypatch.setattr(os, "statvfs", little)
    found = levels(examined(tmp_path, kind=Full))
    assert (found["quota"], found["space"], found["inodes"]) == ("problem", "problem", "problem")


def test_a_file_system_that_counts_no_inodes_is_no_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.statvfs(tmp_path)
    none = os.statvfs_result((*real[:5], 0, 0, 0, *real[8:]))
    monkeypatch.setattr(os, "statvfs", lambda path: none)
    assert levels(examined(tmp_path))["inodes"] == "ok"


@pytest.mark.parametrize(
    ("options", "level", "forbids"), [("rw,relatime", "ok", False), ("ro", "problem", True), ("rw,soft", "note", False)]
)
def test_mount_options_that_matter_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: str, level: str, forbids: bool
) -> None:
    monkeypatch.setattr(filesystem, "found", lambda path: Mount("/mnt", "0:9", "nfs4", "server:/x", options))
    found = examined(tmp_path)
    assert levels(found)["file system"] == level
    assert any(remark.forbids for remark in found["file system"]) is forbids
    assert "nfs4 (server:/x) at /mnt" in found["file system"][0].text
    assert levels(found)["two nodes"] == "note"


@pytest.mark.parametrize("shift_s", [3600.0, -3600.0])
def test_a_clock_that_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shift_s: float) -> None:
    real = time.time
    monkeypatch.setattr(machine.time, "time", lambda: real() + shift_s)
    remark = machine.clock(Place(tmp_path))
    assert remark.level == "note"
    told = re.search(r"is (\d+)\.\d s (behind|ahead of) this node's", remark.text)
    assert told is not None
    assert abs(int(told[1]) - 3600) < 60
    assert told[2] == ("behind" if shift_s > 0 else "ahead of")


@pytest.fixture
def umask() -> Iterator[None]:
    before = os.umask(0o077)
    yield
    os.umask(before)


def test_a_private_umask_matters_unless_the_store_is_shared(umask: None) -> None:
    assert (machine.umask(is_shared=False).level, machine.umask(is_shared=True).level) == ("note", "ok")
    os.umask(0o022)
    assert machine.umask(is_shared=False).level == "ok"


def test_a_damaged_store_is_a_problem_and_the_rest_is_told_all_the_same(tmp_path: Path) -> None:
    Store(tmp_path / "s").register({"lr": 0.1})
    (tmp_path / "s/store.yaml").write_text("format: 1\n")
    found = examined(tmp_path / "s")
    assert found["store"][0].level == "problem"
    assert "jimmy check" in found["store"][0].remedy
    assert "claims" in found


def test_what_two_doctors_said_is_repeated(tmp_path: Path) -> None:
    record = {"at": "2026-11-20", "nodes": ["alpha", "beta"]}
    Store(tmp_path / "s").edit(stale_s=33.0, doctor=record)
    assert examined(tmp_path / "s")["two nodes"] == [
        Remark("ok", "two nodes", "alpha and beta examined it on 2026-11-20: a listing may be 33 s old")
    ]
    prescription.write(str(tmp_path / "s"), {"doctor": record | {"refused": "on nfs4 (x) two won"}})
    (remark,) = examined(tmp_path / "s")["two nodes"]
    assert (remark.forbids, remark.text) == (True, "on nfs4 (x) two won")


def test_modes_that_keep_the_group_out_are_named_with_the_line_that_mends_them(tmp_path: Path) -> None:
    Store(tmp_path / "s", shared="group").register({"lr": 0.1})
    assert examined(tmp_path / "s")["group"][0].level == "ok"
    (tmp_path / "s/store.yaml").chmod(0o600)
    (group,) = examined(tmp_path / "s")["group"]
    assert group.level == "problem"
    assert "store.yaml has mode 0600 instead of 0660" in group.text
    assert "chmod -R u+rwX,g+rwX" in group.remedy


def test_a_store_cannot_be_below_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="is a file"):
        examined(tmp_path / "file/store")


def test_whoever_may_not_write_is_told() -> None:
    program = (
        "from jimmy_manager.cluster import doctor, machine\n"
        "machine._torch = lambda: iter(())\n"
        "for each in doctor.examine('store', race=lambda place: []): print(each.subject, each.forbids, each.text)"
    )
    with shared_place() as place:
        interpreter()
        run_as(ANNA, place, "-m", "jimmy_manager.cli", "init")
        place.chmod(0o755)
        (place / "store").chmod(0o755)
        found = run_as(STRANGER, place, "-c", program)
        assert "permissions True cannot make" in found.stdout, found
        assert "Permission denied" in found.stdout


def test_torch_that_cannot_be_imported_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    import sys

    monkeypatch.setitem(sys.modules, "torch", None)
    (remark,) = [each for each in machine.examine() if each.subject == "torch"]
    assert (remark.level, "install torch" in remark.remedy) == ("problem", True)


def test_a_gpu_that_fails_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    def fail(device: int) -> None:
        raise RuntimeError("CUDA error: out of memory\nand more")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: "H200")
    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    assert machine._devices().text == "a GPU is there, but cannot be used: CUDA error: out of memory"
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100 << 30, 140 << 30))
    assert machine._devices().text == "2 x H200; 100 of 140 GiB of the first are free"
