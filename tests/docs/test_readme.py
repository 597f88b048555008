"""The README does what it says: its job is the one in the repository, its commands run, its links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def lines(block: str) -> list[str]:
    """The commands of a block, without their comments."""
    return [shlex.join(words) for line in block.splitlines() if (words := shlex.split(line, comments=True))]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a newcomer has before the first command, but for the environment, which is the one of these tests."""
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "jobs", folder / "jobs", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "defaults.yaml", folder)
    return folder


def run(command: list[str] | str, folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": "."}
    shell = isinstance(command, str)
    done = subprocess.run(
        command, shell=shell, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=120, check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}"
    return done.stdout


def test_the_first_job_is_the_file_in_the_repository_and_has_at_most_twenty_lines_of_its_own() -> None:
    job = next(block for block in blocks("python") if "class Sine" in block)
    assert job == (ROOT / "jobs" / "first.py").read_text("utf-8")
    around = ("from", "if __name__", "    Sine.main")
    assert sum(1 for line in job.splitlines() if line.strip() and not line.startswith(around)) <= 20


def test_the_commands_and_the_notebook_cells_work_in_the_order_of_the_page(clone: Path) -> None:
    look = next(block for block in blocks("sh") if "--workers" in block)
    output = [run(line, clone) for line in lines(look)]
    assert len(output) == 3
    assert output[1].count("done") == 12
    losses = [float(line.split("\t")[-1]) for line in output[2].splitlines()[1:]]
    assert len(losses) == 3
    cells = next(block for block in blocks("python") if "fetch" in block)
    best = run([sys.executable, "-c", f"{cells}\nassert not model.training"], clone)
    assert re.match(r"[0-9a-f]{8} ", best)
    told = [run(line, clone) for line in lines(next(block for block in blocks("sh") if "jimmy best" in block))]
    assert told[1].count("\n") == 5, "a heading and four groups"
    assert told[2:4] == ["curves.png\n", "loss-by-lr-and-width.png\n"]
    assert {file.name for file in clone.glob("*.png")} == {"curves.png", "loss-by-lr-and-width.png"}
    assert (clone / "runs.md").read_text().startswith("| key ")
    assert "9 runs" in told[5]
    more = next(block for block in blocks("python") if "manager.diff" in block)
    assert "config\n" in run([sys.executable, "-W", "error", "-c", f"{cells}\n{more}"], clone)
    assert (clone / "curves.pdf").stat().st_size > 1000
    assert "all 2 workers: 0 done, 12 complete before" in run(lines(look)[0], clone)


def test_the_experiment_of_the_page_learns_to_read_digits(clone: Path) -> None:
    experiment = next(block for block in blocks("python") if "JimmyExperiment(" in block)
    printed = run([sys.executable, "-W", "error", "-c", experiment], clone)
    accuracy = float(re.search(r"Eval/Acc +([0-9.]+)", printed)[1])
    assert accuracy > 0.9
    assert (clone / "Runs" / "DigitsDataset" / "SampleCNN").is_dir()


def batch_script(clone: Path, *more: str) -> str:
    """What Slurm would get of the page's line; Slurm itself is tested elsewhere."""
    (line,) = lines(next(block for block in blocks("sh") if "submit" in block))
    return run([*shlex.split(line), "--dry-run", *more], clone)


def test_the_submitted_script_trains_the_grid(clone: Path) -> None:
    script = batch_script(clone)
    assert "#SBATCH --array=1-32" in script
    assert "#SBATCH --time=1:00:00" in script
    run(["bash", "-c", script], clone)


def test_a_signal_to_the_batch_shell_alone_lets_the_worker_save_and_hand_its_run_on(clone: Path) -> None:
    script = batch_script(clone, "--num-epochs", "1000000", "--store", "signalled")
    shell = subprocess.Popen(
        ["bash", "-c", script], cwd=clone, start_new_session=True, env=os.environ | {"PYTHONPATH": "."},
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while not list(clone.glob("signalled/stats/*/*.json")):
            assert shell.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        shell.send_signal(signal.SIGUSR2)
        _, told = shell.communicate(timeout=60)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
    assert shell.returncode == 128 + signal.SIGUSR2, told
    assert "stopped by SIGUSR2" in told


def test_every_make_target_that_is_named_exists() -> None:
    targets = re.findall(r"^make (\w+)", "\n".join(blocks("sh")), re.MULTILINE)
    assert targets == ["demo", "test"]
    for target in targets:
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_every_command_that_is_named_exists() -> None:
    from jimmy_manager.cli.main import main

    for name in set(re.findall(r"jimmy ([a-z]+)", README)):
        assert main.get_command(None, name) is not None, name  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["README.md", "store/README.md"])
def test_every_link_leads_somewhere(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / page).parent.joinpath(target).exists(), target
