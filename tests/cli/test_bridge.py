"""``jimmy tensorboard`` starts the real TensorBoard, for this machine alone, on every run."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

ROOT = Path(__file__).resolve().parents[2]
Jimmy = Callable[..., Result]


@pytest.fixture
def server(store: Path, tmp_path: Path) -> Iterator[str]:
    """The address of TensorBoard on the sample store."""
    words = ["tensorboard", "--store", str(store), "--", "--port", "0"]
    command = [sys.executable, "-P", "-m", "jimmy_manager.cli", *words]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        told = ""
        while not (found := re.search(r"at (http://\S+?)/? ", told)):
            line = process.stderr.readline()
            assert line, told
            told += line
        yield found[1]
    finally:
        process.terminate()
        process.communicate()


def ask(address: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as reply:
        return json.load(reply)


def test_the_real_tensorboard_lists_every_run_with_configuration_and_results(
    server: str, jimmy: Jimmy
) -> None:
    rows = {row["key"]: row for row in json.loads(jimmy("ls", "--json").stdout)}
    deadline = time.monotonic() + 60
    groups: list[Any] = []
    while len(groups) < len(rows) and time.monotonic() < deadline:  # it reads the files in the background
        try:
            wanted = {"experimentName": "", "allowedStatuses": [
                "STATUS_UNKNOWN", "STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING",
            ], "colParams": [], "startIndex": 0, "sliceSize": 100}  # fmt: skip
            groups = ask(server, "/data/plugin/hparams/session_groups", wanted)["sessionGroups"]
        except urllib.error.HTTPError:
            time.sleep(0.2)
        time.sleep(0.2)
    found = {group["name"]: group for group in groups}
    assert found.keys() == rows.keys()
    for key, group in found.items():
        assert group["hparams"]["lr"] == rows[key]["lr"]
        losses = [value["value"] for value in group["metricValues"] if value["name"]["tag"] == "loss"]
        if rows[key].get("loss") is not None:
            assert losses == [pytest.approx(rows[key]["loss"])]
    assert server.startswith(("http://localhost:", "http://127.0.0.1:"))


def test_it_listens_on_this_machine_alone(server: str) -> None:
    port = int(server.rpartition(":")[2])
    table = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    listening = [line.split()[1] for line in table.splitlines() if line.split()[3] == "0A"]
    hosts = {place.partition(":")[0] for place in listening if int(place.partition(":")[2], 16) == port}
    assert hosts <= {"0100007F", "00000000000000000000000001000000"}
    assert hosts


@pytest.mark.parametrize("option", ["--bind_all", "--host=0.0.0.0", "--hos", "--bind", "--logdir"])
def test_options_that_would_open_it_to_others_are_refused(jimmy: Jimmy, option: str) -> None:
    assert "ssh -L" in re.sub(r"\s+", " ", jimmy("tensorboard", "--", option, code=2).output)


def test_the_directory_alone_is_printed_for_those_who_have_a_tensorboard(
    jimmy: Jimmy, key_of: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    where = f'key == "{key_of(lr=0.1)}"'
    root = Path(jimmy("tensorboard", "--logdir-only", "--where", where).stdout.strip())
    (run,) = root.iterdir()
    assert root.is_relative_to(tmp_path / "cache")
    assert list(run.glob("events.out.tfevents*"))
    assert jimmy("tensorboard", "--where", "los == 1", code=1).output.startswith("error: ")
