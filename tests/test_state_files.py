"""Files of states alone; bit flips, cuts and full disks are tested in ``training/test_adversary.py``."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from jimmy_manager.errors import CheckpointError
from jimmy_manager.state_files import leaves, load_state, save_state


def test_a_state_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "last.pth"
    save_state({"w": torch.arange(3.0), "n": np.float32(0.5), "s": {1, 2}, "o": OrderedDict(a=(1, None))}, path)
    back = load_state(str(path))
    assert back.pop("w").tolist() == [0.0, 1.0, 2.0]
    assert back == {"n": np.float32(0.5), "s": {1, 2}, "o": OrderedDict(a=(1, None))}
    assert [type(value) for value in back.values()] == [np.float32, set, OrderedDict]
    assert [each.name for each in path.parent.iterdir()] == ["last.pth"]


def test_a_save_replaces_the_file_and_whoever_has_it_open_reads_on_in_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_state({"step": 1}, path)
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_state({"step": 2}, path)
        assert reader.read() == before
    assert load_state(path) == {"step": 2}


def test_the_bytes_are_on_the_disk_before_they_get_their_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        calls.append("directory" if os.path.isdir(f"/proc/self/fd/{descriptor}") else "file")
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        calls.append("replace")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    save_state({}, tmp_path / "last.pth")
    assert calls == ["file", "replace", "directory"]


def test_what_is_refused_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "folder" / "last.pth"
    with pytest.raises(CheckpointError, match=r"^ckpt\['a'\]\[0\] is of type builtins.object"):
        save_state({"a": [object()]}, path)
    assert not path.parent.exists()


KILLED = """
import os, signal, sys, torch
from jimmy_manager.state_files import save_state

def save(value, file):
    file.write(b"half of it")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)

torch.save = save
save_state({"step": 2}, sys.argv[1])
"""


def test_a_writer_that_is_killed_leaves_the_state_before_and_is_in_nobodys_way(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    save_state({"step": 1}, path)
    root = Path(__file__).resolve().parents[1]
    done = subprocess.run([sys.executable, "-c", KILLED, path], cwd=root, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert load_state(path) == {"step": 1}
    save_state({"step": 3}, path)
    assert load_state(path) == {"step": 3}
    (left,) = {each.name for each in tmp_path.iterdir()} - {"last.pth"}
    assert left.startswith(".last.pth.")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"^there is no checkpoint '.*/none\.pth'$"):
        load_state(tmp_path / "none.pth")


def test_a_directory_is_no_damaged_file(tmp_path: Path) -> None:
    for path in (tmp_path, f"{tmp_path}/"):
        with pytest.raises(CheckpointError, match=r"^'.*' is a directory; give the file, e\.g\. '.*[^/]/last\.pth'$"):
            load_state(path)


def test_a_flipped_bit_in_a_tensor_is_damage_in_the_file_of_that_name(tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    save_state({"w": torch.full((64,), 1.25)}, path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(torch.tensor(1.25).numpy().tobytes() * 64)] ^= 1
    path.write_bytes(raw)
    with pytest.raises(CheckpointError, match=r"^cannot load '.*/best\.pth': it is damaged \(.*CRC-32.*another copy"):
        load_state(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\3\4", b"\x80\x02."])
def test_what_is_no_state_is_damage_in_the_file_of_that_name(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "best.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"^cannot load '.*/best\.pth': it is damaged"):
        load_state(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK", b"epoch,loss\n1,0.5\n"])
def test_what_does_not_begin_as_torch_begins_its_files_is_not_said_to_run_code(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "notes.pth"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"is not a file that torch wrote \(it begins with b'") as refusal:
        load_state(path)
    assert repr(content[:4]) in str(refusal.value)
    assert "code" not in str(refusal.value)


def test_a_state_is_a_dictionary(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match=r"list\.pth' holds list, not a dictionary"):
        load_state(tmp_path / "list.pth")


def test_leaves_are_dotted_paths_in_order() -> None:
    state = {"b": {"x": [1, (2, {"y": None})]}, "a": {}, 3: (), "t": torch.ones(2, 2), "s": "ab"}
    assert leaves(state) == ["b.x.0", "b.x.1.0", "b.x.1.1.y", "a", "3", "t", "s"]
    assert leaves({}) == [""]
    assert leaves(5, "step") == ["step"]
