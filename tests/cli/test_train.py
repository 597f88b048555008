"""``jimmy sweep`` and ``jimmy process`` as processes: exit codes, signals, several workers of which some die."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager import Store

Start = Callable[..., "subprocess.Popen[str]"]

pytestmark = pytest.mark.usefixtures("job")
JOB = "jobs/sample_job.py"
LEAVING = """
import os, sys
from jimmy_manager import Manager

class Leaving(Manager):
    num_epochs = 1
    choices = {"how": ["", "sys.exit(0)", "sys.exit()", "sys.exit('why')", "raise SystemExit"]}
    def train(self):
        exec(self.config.how)
    def eval(self):
        return {}
"""


def finish(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=seconds)
    return process.returncode, out, err


def states(directory: Path) -> dict[str, str]:
    store = Store(directory, read_only=True)
    return {key: store.standing(key).state for key in store.registry}


def wait_for(condition: Callable[[], object], process: subprocess.Popen[str], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_sweep_trains_the_grid_and_a_second_one_finds_nothing_to_do(start: Start, tmp_path: Path) -> None:
    code, out, err = finish(start("sweep", JOB))
    assert (code, out) == (0, "")
    assert "4 done, 0 complete before" in err
    assert list(states(tmp_path / "own").values()) == ["done"] * 4
    code, _, err = finish(start("sweep", JOB, "lr=0.1", "--quiet"))
    assert (code, err) == (0, "")


def test_fields_on_the_command_line_fix_them_in_each_configuration(start: Start, tmp_path: Path) -> None:
    code, _, err = finish(start("worker", JOB, "lr=0.7", "+extra.field=[1, 2]", "--num-epochs=1", "--order=given"))
    assert code == 0, err
    store = Store(tmp_path / "own", read_only=True)
    assert [(c.lr, c.extra.field) for c in store.configs.values()] == [(0.7, [1, 2])] * 2
    assert {s["epoch"] for s in store.stats.values()} == {1}


@pytest.mark.parametrize("command", [["sweep"], ["sweep", "--workers", "2"], ["process"]])
def test_a_misspelt_field_is_a_wrong_command_line_and_trains_nothing(
    start: Start, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "jobs" / "defaults.yaml").write_text("{lr: 0.1, seed: 0}")
    text = (tmp_path / JOB).read_text().replace("default_config = None", "default_config = 'defaults.yaml'")
    (tmp_path / JOB).write_text(text)
    code, out, err = finish(start(*command, JOB, "sede=1"))
    assert (code, out, "did you mean 'seed'?" in err) == (2, "", True), err
    assert not (tmp_path / "own" / "configs").exists()


def test_choices_come_from_a_file_too(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("seed: [5, 6, 7]\n")
    code, _, err = finish(start("sweep", JOB, "--choices", "own.yaml", "--count", "2"))
    assert (code, "2 done" in err) == (0, True)


def test_process_prints_the_key_and_nothing_else_on_stdout(start: Start, tmp_path: Path) -> None:
    code, out, err = finish(start("process", JOB, "lr=0.5"))
    assert (code, out.strip()) == (0, next(iter(states(tmp_path / "own")))), err
    code, again, _ = finish(start("process", JOB, "lr=0.5", "--fresh"))
    assert (code, again) == (0, out)
    assert Store(tmp_path / "own", read_only=True).committed(out.strip()).generation > 1  # type: ignore[union-attr]


def test_a_failed_run_is_exit_code_3_with_its_traceback_and_no_control_characters(start: Start) -> None:
    code, out, err = finish(start("process", JOB, "act=raise"))
    assert (code, out) == (3, "")
    assert "Traceback" in err
    assert "ValueError: no \\x1b[2Jluck" in err
    assert "\x1b" not in err
    code, _, err = finish(start("sweep", JOB, "act=raise", "lr=0.1", "seed=0"))
    assert code == 3
    assert "try again with 'jimmy retry" in err
    assert finish(start("process", JOB, "act=raise", "--retries", "1", "-q"))[0] == 3


def test_a_run_held_elsewhere_is_exit_code_4(start: Start, tmp_path: Path) -> None:
    first = start("process", JOB, "pause=30")
    wait_for(lambda: list(tmp_path.glob("training-*")), first)
    code, _, err = finish(start("process", JOB, "pause=30"))
    assert code == 4
    assert "is held by" in err
    # The first one asks to save at the end of the epoch, which is far; the second one, seen apart from it, interrupts.
    first.send_signal(signal.SIGINT)
    time.sleep(1.0)
    first.send_signal(signal.SIGINT)
    code, _, err = finish(first, 20)
    assert (code, "Traceback" in err) == (130, False)
    assert set(states(tmp_path / "own").values()) == {"released"}


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_signal_saves_and_is_told_by_the_exit_code(
    start: Start, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start("sweep", JOB, "pause=0.3", "--num-epochs", "1000")
    wait_for(lambda: list(tmp_path.glob("training-*")), process)
    process.send_signal(number)
    found, _, err = finish(process)
    assert (found, "Traceback" in err) == (code, False)
    assert f"stopped by {number.name}" in err
    assert set(states(tmp_path / "own").values()) == {"released"}


def test_a_job_file_has_the_same_commands(start: Start, tmp_path: Path) -> None:
    command = [sys.executable, JOB, "sweep", "--store", "own", "seed=0", "lr=0.1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert (done.returncode, "1 done" in done.stderr) == (0, True), done.stderr
    shown = subprocess.run([sys.executable, JOB, "ls", "--store", "own"], cwd=tmp_path, capture_output=True, text=True)
    assert "done" in shown.stdout
    usage = subprocess.run([sys.executable, JOB, "sweep", "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert "python sample_job.py sweep [OPTIONS] [NAME=VALUE]..." in usage.stdout


def test_a_manager_that_takes_no_store_is_an_error_that_says_what_to_write(start: Start, tmp_path: Path) -> None:
    text = "from jimmy_manager import Manager\nclass A(Manager):\n    def __init__(self): super().__init__()\n"
    (tmp_path / "jobs" / "odd.py").write_text(text)
    code, _, err = finish(start("sweep", "jobs/odd.py"))
    assert (code, "hand them to super().__init__()" in err, "Traceback" in err) == (1, True, False)


def test_a_missing_job_is_told_once_and_not_by_each_worker(start: Start) -> None:
    code, _, err = finish(start("sweep", "jobs/nothing.py", "--workers", "3"))
    assert (code, err.count("error: there is no job file 'jobs/nothing.py'")) == (1, 1)


def test_an_interrupt_while_the_job_is_imported_is_clean(start: Start, tmp_path: Path) -> None:
    text = "import pathlib, time\npathlib.Path('importing').touch()\ntime.sleep(60)\n"
    (tmp_path / "jobs" / "slow.py").write_text(text)
    process = start("sweep", "jobs/slow.py")
    wait_for((tmp_path / "importing").exists, process)
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert (code, out, err.strip()) == (130, "", "")


def test_several_workers_share_the_grid_and_a_killed_one_is_started_again(start: Start, tmp_path: Path) -> None:
    process = start("sweep", JOB, "--workers", "2", "act=kill once", "pause=0.01")
    code, _, err = finish(process)
    assert code == 0, err
    assert set(states(tmp_path / "own").values()) == {"done"}
    assert err.count("died of SIGKILL; it is started again") == 1
    assert "[1] " in err
    assert "[2] " in err
    environment = Store(tmp_path / "own", read_only=True).stats.values()
    assert {stats["run"]["threads"] for stats in environment} == {max(1, len(os.sched_getaffinity(0)) // 2)}


def test_a_poisonous_run_ends_as_failed_and_the_sweep_around_it_finishes(start: Start, tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("- {seed: 0}\n- {seed: 1, act: kill}\n")
    code, _, err = finish(start("sweep", JOB, "--workers", "1", "--choices", "own.yaml", "--max-crashes", "2"))
    assert code == 3, err
    assert sorted(states(tmp_path / "own").values()) == ["done", "failed"]
    # The first of them had saved epoch 0, so it does not count as fruitless.
    assert len((tmp_path / "deaths").read_text()) == 3


def test_a_worker_that_dies_before_its_first_run_is_not_started_for_ever(start: Start, tmp_path: Path) -> None:
    text = "import os\nwith open('starts', 'a') as f: f.write('x')\nos.kill(os.getpid(), 11)\n"
    (tmp_path / "jobs" / "stillborn.py").write_text(text)
    code, _, err = finish(start("sweep", "jobs/stillborn.py", "--workers", "1"))
    assert (code, (tmp_path / "starts").read_text()) == (128 + signal.SIGSEGV, "xxx")
    assert "stays down" in err


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stop_signal_is_handed_on_to_every_worker(
    start: Start, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    process = start("sweep", JOB, "--workers", "2", "pause=0.3", "--num-epochs", "1000")
    wait_for(lambda: len(list(tmp_path.glob("training-*"))) == 2, process)
    process.send_signal(number)
    found, _, err = finish(process)
    assert (found, "Traceback" in err) == (code, False), err
    assert set(states(tmp_path / "own").values()) == {"released"}


def test_workers_save_and_stop_when_their_parent_is_killed(start: Start, tmp_path: Path) -> None:
    process = start("sweep", JOB, "--workers", "2", "pause=0.3", "--num-epochs", "1000")
    wait_for(lambda: len(list(tmp_path.glob("training-*"))) == 2, process)
    process.kill()
    deadline = time.monotonic() + 60
    while set(states(tmp_path / "own").values()) != {"released"}:
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("workers", [[], ["--workers", "2"]])
def test_a_run_that_calls_sys_exit_has_failed_and_the_others_are_trained(
    start: Start, tmp_path: Path, workers: list[str]
) -> None:
    (tmp_path / "jobs" / "leaving.py").write_text(LEAVING)
    code, _, err = finish(start("sweep", "jobs/leaving.py", *workers))
    assert code == 3, err
    assert sorted(states(tmp_path / "own").values()) == ["done", *["failed"] * 4]
    assert finish(start("process", "jobs/leaving.py", "how=sys.exit(0)", "--retries", "1", "--quiet"))[0] == 3


def test_a_worker_that_leaves_with_0_in_the_middle_of_its_work_has_not_ended(start: Start, tmp_path: Path) -> None:
    (tmp_path / "jobs" / "leaving.py").write_text(LEAVING)
    (tmp_path / "own.yaml").write_text("how: [os._exit(0), '']\n")
    code, _, err = finish(
        start("sweep", "jobs/leaving.py", "--workers", "1", "--choices", "own.yaml", "--max-crashes", "1")
    )
    assert code == 3, err
    assert err.count("worker 1/1 left with exit code 0 in the middle of its work; it is started again") >= 1
    assert sorted(states(tmp_path / "own").values()) == ["done", "failed"]


@pytest.mark.parametrize("where", ["at import", "in __init__"])
@pytest.mark.parametrize("arguments", [["sweep"], ["sweep", "--workers", "2"], ["process"]])
def test_a_job_that_calls_sys_exit_outside_of_a_run_is_an_error(
    start: Start, tmp_path: Path, where: str, arguments: list[str]
) -> None:
    if where == "at import":
        text = "import sys\nsys.exit(0)\n"
    else:
        text = LEAVING + "    def __init__(self, *args, **kwargs): sys.exit(0)\n"
    (tmp_path / "jobs" / "leaving.py").write_text(text)
    code, out, err = finish(start(arguments[0], "jobs/leaving.py", *arguments[1:]))
    assert (code, out, "Traceback" in err) == (1, "", False), err
    assert "error: the job jobs/leaving.py called sys.exit(0); let it raise an exception instead" in err
