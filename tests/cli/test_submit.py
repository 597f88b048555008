"""``jimmy submit`` beside a stand-in of ``sbatch``, which notes what it was given; the real one is in tests/cluster."""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from jimmy_manager import Store
from jimmy_manager.cli.main import main
from tests.cli.conftest import ROOT

JOB = "jobs/sample_job.py"
Submit = Callable[..., Result]


class Sbatch:
    """What the stand-in got; None where nobody called it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def answer(self, text: str, code: int = 0, error: str = "") -> None:
        script = f'printf "%s\\n" "$@" >{self._folder}/arguments\ncat >{self._folder}/script\n'
        script += f"ls -d slurm >{self._folder}/found\nenv >{self._folder}/environ\necho {shlex.quote(error)} >&2\n"
        program = self._folder / "sbatch"
        program.write_text(f"#!/bin/sh\n{script}printf '%s\\n' {shlex.quote(text)}\nexit {code}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    @property
    def arguments(self) -> list[str] | None:
        told = self._folder / "arguments"
        return told.read_text().splitlines() if told.exists() else None

    @property
    def script(self) -> str:
        return (self._folder / "script").read_text()

    @property
    def environ(self) -> dict[str, str]:
        lines = (self._folder / "environ").read_text().splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    @property
    def found(self) -> str:
        return (self._folder / "found").read_text()


@pytest.fixture
def sbatch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sbatch:
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    stand_in = Sbatch(folder)
    stand_in.answer("17")
    return stand_in


@pytest.fixture
def submit(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Submit:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("JIMMY_STORE", raising=False)

    def call(*words: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["submit", *words], prog_name="jimmy")
        assert result.exit_code == code, result.output
        return result

    return call


def command(script: str) -> list[str]:
    """The words of the last line, as the shell will take them apart."""
    return shlex.split(script.splitlines()[-1])


def directives(script: str) -> list[str]:
    return [line.removeprefix("#SBATCH ") for line in script.splitlines() if line.startswith("#SBATCH ")]


def test_what_sbatch_gets_is_an_array_of_the_workers_that_were_asked_for(sbatch: Sbatch, submit: Submit) -> None:
    words = (JOB, "lr=0.1", "--array", "32%8", "--time=4:00:00", "--num-epochs", "5")
    told = submit(*words, "--", "-p", "low", "--gres=gpu:1")
    assert told.stdout == "17\n"
    for hint in ("squeue -j 17 ", "jimmy ls ", "jimmy workers --watch ", "sample_job-17_*.out", "jimmy stop --all"):
        assert hint in told.stderr
    assert "2 configurations" in told.stderr
    own = [f"--chdir={os.getcwd()}", "--array=1-32%8", "--time=4:00:00"]
    own += ["--output=slurm/%x-%A_%a.out", "--job-name=sample_job"]
    assert sbatch.arguments == ["--parsable", *own, "-p", "low", "--gres=gpu:1"]
    given = directives(sbatch.script)
    assert given[-1] == "-p low --gres=gpu:1"
    assert set(own) < set(given)
    assert {"--requeue", "--open-mode=append", "--signal=B:USR2@120"} < set(given)
    assert len(given) == len({each.partition("=")[0] for each in given})
    exec_, program, *line = command(sbatch.script)
    assert exec_ == "exec"
    assert os.access(program, os.X_OK)
    assert line[-9:] == ["sweep", JOB, "lr=0.1", "--num-epochs", "5", "--store", "store", "--wait", "--requeue"]


def test_the_folder_of_the_output_is_there_before_sbatch_is_called(sbatch: Sbatch, submit: Submit) -> None:
    submit(JOB)
    assert sbatch.found == "slurm\n"
    submit(JOB, "--dry-run", "--", "-o", "else/where/%j", "--error=third/%j")
    assert Path("else/where").is_dir()
    assert Path("third").is_dir()
    told = submit(JOB, "--", "-J", "mine", "-oelse/where/%j-%x").stderr
    assert "tail -f else/where/*-mine " in told


def test_a_dry_run_prints_the_script_that_sbatch_would_get_and_submits_nothing(sbatch: Sbatch, submit: Submit) -> None:
    before = sorted(os.listdir())
    told = submit(JOB, "--array", "4", "--dry-run", "--", "--comment", "two words")
    assert sbatch.arguments is None
    assert sorted(os.listdir()) == sorted([*before, "slurm"])
    assert told.stderr == ""
    submit(JOB, "--array", "4", "--", "--comment", "two words")
    assert sbatch.script == told.stdout


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["jobs/smaple_job.py"], 1, "no job file"),
        ([JOB, "sede=1"], 2, "did you mean 'seed'?"),
        ([JOB, "--choices", "nowhere.yaml"], 2, "nowhere.yaml"),
        ([JOB, "--choices", "misspelt.yaml"], 1, "did you mean 'seed'?"),
        ([JOB, "--choices", "misspelt.yaml", "--new-fields=rerun"], 1, "did you mean 'seed'?"),
        ([JOB, "--choices", "empty.yaml"], 1, "nothing to train"),
        ([JOB, "--store", "jobs/sample_job.py/store"], 1, "is not a directory"),
        ([JOB, "--store", "other"], 1, "belongs to 'Other'"),
        ([JOB, "--num-epcohs", "5"], 2, "--num-epochs"),
        ([JOB, "--device"], 2, "--device"),
        ([JOB, "--array", "0"], 2, "0 workers would train nothing"),
        ([JOB, "--array", "00%2"], 2, "0 workers would train nothing"),
        ([JOB, "--array", "4%0"], 2, "at most 0 at a time would train nothing"),
        ([JOB, "--", "low"], 2, "'low' after -- is no option of sbatch"),
        ([JOB, "--", "--wrap=true"], 2, "--wrap"),
        ([JOB, "--", "-p", "low", "-D", "/tmp"], 2, "cd to the other first"),
        ([JOB, "--script", "misspelt.yaml"], 1, "no line with 'jimmy sweep JOB'"),
    ],
)
def test_what_workers_would_stumble_over_is_found_before_they_are_queued(
    sbatch: Sbatch, submit: Submit, words: list[str], code: int, reason: str
) -> None:
    Path("misspelt.yaml").write_text("{lr: [0.1, 0.2], seeds: [1]}")
    Path("empty.yaml").write_text("{lr: []}")
    Path("jobs/defaults.yaml").write_text("{lr: 0.1, seed: 0}")
    Path(JOB).write_text(Path(JOB).read_text().replace("default_config = None", "default_config = 'defaults.yaml'"))
    Store("other").bind(lambda info: info._replace(manager="Other"))
    told = submit(*words, code=code)
    assert reason in told.stderr
    assert told.stdout == ""
    assert sbatch.arguments is None
    assert not Path("store").exists()


def test_defaults_that_gained_a_field_are_asked_about_before_workers_are_queued(
    sbatch: Sbatch, submit: Submit
) -> None:
    text = Path(JOB).read_text().replace("default_config = None", "default_config = 'defaults.yaml'")
    Path(JOB).write_text(text.replace('.fill({"lr": 0.1, "seed": 0, "act": "", "pause": 0.0})', ""))
    Path("jobs/defaults.yaml").write_text("{lr: 0.1, seed: 0, act: '', pause: 0}")
    trained = CliRunner().invoke(main, ["sweep", JOB, "-q"], prog_name="jimmy")
    assert trained.exit_code == 0, trained.output
    before = sorted(Path("store").rglob("*"))
    submit(JOB)
    assert "4 configurations" in submit(JOB).stderr
    Path("jobs/defaults.yaml").write_text("{lr: 0.1, seed: 0, act: '', pause: 0, clip: 1}")
    assert "jimmy schema add clip 1" in submit(JOB, code=1).stderr
    submit(JOB, "--new-fields=rerun")
    assert sorted(Path("store").rglob("*")) == before


def test_a_job_that_takes_no_options_is_told_before_its_workers_fail(sbatch: Sbatch, submit: Submit) -> None:
    own = "    def __init__(self, store_dir):\n        super().__init__(store_dir)\n\n    def train(self):"
    Path(JOB).write_text(Path(JOB).read_text().replace("    def train(self):", own))
    assert "let it take *args, **kwargs" in submit(JOB, code=1).stderr


def test_words_with_spaces_and_quotes_arrive_as_they_were(sbatch: Sbatch, submit: Submit) -> None:
    place = Path("""it's "the" $HOME dir""")
    place.mkdir()
    os.chdir(place)
    Path("a job").mkdir()
    Path("../jobs/sample_job.py").rename("a job/sample_job.py")
    Path("my 'choices'.yaml").write_text("{lr: [0.1]}")
    words = ["a job/sample_job.py", "act=it's; $(reboot) `x`", "--choices", "my 'choices'.yaml", "--store", "the store"]
    told = submit(*words, "--", "--comment", "it's")
    assert command(sbatch.script)[3:-2] == words
    (line,) = [each for each in directives(sbatch.script) if each.startswith("--chdir=")]
    assert shlex.split(line) == [f"--chdir={os.getcwd()}"]
    assert "--store 'the store'" in told.stderr
    assert sbatch.arguments is not None
    assert sbatch.arguments[-2:] == ["--comment", "it's"]


def test_the_store_of_the_environment_is_written_into_the_script(
    sbatch: Sbatch, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JIMMY_STORE", "shared/store")
    told = submit(JOB)
    assert "--store shared/store --wait" in sbatch.script
    assert "--store" not in told.stderr


def test_what_is_said_of_waiting_and_requeueing_is_left_as_it_is(submit: Submit) -> None:
    told = submit(JOB, "--dry-run", "--no-wait", "--no-requeue")
    assert command(told.stdout)[2:] == ["sweep", JOB, "--no-wait", "--no-requeue", "--store", "store"]


def test_the_signal_of_a_short_job_does_not_come_at_its_beginning(submit: Submit) -> None:
    assert "--signal=B:USR2@15" in directives(submit(JOB, "--time", "1", "--dry-run").stdout)
    assert "--signal=B:USR2@120" in directives(submit(JOB, "--time", "4", "--dry-run").stdout)
    assert "--signal=B:USR2@120" in directives(submit(JOB, "--time", "UNLIMITED", "--dry-run").stdout)


@pytest.mark.parametrize("time", ["0", "0:00", "0-0"])
def test_a_job_without_a_limit_is_not_sent_a_signal_at_its_end(submit: Submit, time: str) -> None:
    """``--time 0`` means no limit, and the template's signal then means nothing."""
    assert "--signal=B:USR2@120" in directives(submit(JOB, "--time", time, "--dry-run").stdout)


def test_slurm_rounds_a_time_up_to_minutes_and_so_does_the_signal(submit: Submit) -> None:
    assert "--signal=B:USR2@15" in directives(submit(JOB, "--time", "0:02", "--dry-run").stdout)
    assert "--signal=B:USR2@30" in directives(submit(JOB, "--time", "1:01", "--dry-run").stdout)


@pytest.mark.parametrize("words", [["--time=1"], ["--time", "1"], ["-t", "1"], ["-t1"], ["-pa", "--time=9", "-t1"]])
def test_a_time_that_is_given_to_sbatch_has_its_signal_too(sbatch: Sbatch, submit: Submit, words: list[str]) -> None:
    submit(JOB, "--time=4:00:00", "--", *words)
    assert "--signal=B:USR2@15" in directives(sbatch.script)
    assert sbatch.arguments is not None
    assert "--signal=B:USR2@15" in sbatch.arguments
    submit(JOB, "--", *words, "--signal=B:USR1@5")
    assert [each for each in sbatch.arguments if "--signal" in each][-1] == "--signal=B:USR1@5"


def test_workers_inherit_nothing_of_the_job_that_they_are_submitted_from(
    sbatch: Sbatch, submit: Submit, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {"SLURM_CONF": "/etc/own.conf", "SLURM_CLUSTERS": "east", "SLURM_TIME_FORMAT": "relative", "MINE": "1"}
    jobs = dict.fromkeys(("SLURM_RESTART_COUNT", "SLURM_ARRAY_TASK_ID", "SLURM_NTASKS", "SLURM_STEP_NUM_TASKS"), "2")
    for name, value in (own | jobs).items():
        monkeypatch.setenv(name, value)
    submit(JOB)
    assert sbatch.environ.items() >= (own | jobs).items(), "there is no job, so these are somebody's settings"
    monkeypatch.setenv("SLURM_JOB_ID", "12")
    submit(JOB)
    assert sbatch.environ.items() >= own.items()
    assert not sbatch.environ.keys() & {*jobs, "SLURM_JOB_ID"}


@pytest.mark.parametrize("code", [1, 255])
def test_a_refusal_of_sbatch_is_shown_as_it_is(
    sbatch: Sbatch, submit: Submit, capfd: pytest.CaptureFixture[str], code: int
) -> None:
    sbatch.answer("", code, "sbatch: error: Invalid job array specification")
    told = submit(JOB, "--array", "100000", code=code)
    assert (told.stdout, told.stderr) == ("", "")
    assert capfd.readouterr().err == "sbatch: error: Invalid job array specification\n"
    assert not Path("store").exists()


def test_an_answer_without_a_number_is_an_error(sbatch: Sbatch, submit: Submit) -> None:
    sbatch.answer("Submitted batch job 17")
    assert "instead of a job's number" in submit(JOB, code=1).stderr


def test_another_cluster_is_named_where_sbatch_names_one(sbatch: Sbatch, submit: Submit) -> None:
    sbatch.answer("17;east")
    assert "squeue -M east -j 17 " in submit(JOB).stderr


def test_more_workers_than_configurations_are_remarked_upon(sbatch: Sbatch, submit: Submit) -> None:
    assert "note: 4 configurations cannot keep 5 workers busy" in submit(JOB, "--array=5").stderr
    assert "note" not in submit(JOB, "--array=4").stderr


def test_a_folder_that_cannot_be_made_for_the_output_is_named(sbatch: Sbatch, submit: Submit) -> None:
    Path("slurm").touch()
    assert "cannot make 'slurm'" in submit(JOB, code=1).stderr.replace(f"{os.getcwd()}/", "")
    assert sbatch.arguments is None


def test_where_there_is_no_sbatch_the_error_says_what_to_do(
    submit: Submit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "there is no sbatch here; print the script with --dry-run" in submit(JOB, code=1).stderr
    submit(JOB, "--dry-run")


def test_a_script_of_ones_own_is_filled_in_and_otherwise_left_alone(submit: Submit) -> None:
    Path("own.sbatch").write_text(
        "#!/bin/bash -l\n#SBATCH --time=2:00:00\n#SBATCH --array=1-3\n#SBATCH -A money\n#SBATCH --output=o-%A.out\n"
        "module load python   # not jimmy sweep\nexec apptainer exec my.sif jimmy sweep old.py --store old\n"
    )
    script = submit(JOB, "--script", "own.sbatch", "--array", "9", "--dry-run", "--", "-A", "more").stdout
    assert script.splitlines() == [
        "#!/bin/bash -l", "#SBATCH --time=2:00:00", "#SBATCH --array=1-9", "#SBATCH -A money",
        "#SBATCH --output=o-%A.out", f"#SBATCH --chdir={shlex.quote(os.getcwd())}", "#SBATCH --job-name=sample_job",
        "#SBATCH -A more",
        "module load python   # not jimmy sweep",
        f"exec apptainer exec my.sif jimmy sweep {JOB} --store store --wait --requeue",
    ]  # fmt: skip


def test_the_name_that_a_script_of_ones_own_gives_its_job_stays(sbatch: Sbatch, submit: Submit) -> None:
    Path("own.sbatch").write_text("#SBATCH -J mine -o %x-%A_%a\nexec jimmy sweep x\n")
    told = submit(JOB, "--script", "own.sbatch")
    assert "tail -f mine-17_* " in told.stderr
    assert "sample_job" not in " ".join(line for line in directives(sbatch.script) if "chdir" not in line)


def test_a_job_file_that_is_run_submits_itself(sbatch: Sbatch, job: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "jobs/sample_job.py", "submit", "lr=0.1", "--array=2"], cwd=tmp_path, capture_output=True,
        text=True, timeout=120, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "17\n"), done.stderr
    assert command(sbatch.script)[3:5] == ["jobs/sample_job.py:Job", "lr=0.1"]


def test_the_help_names_the_options_of_sweep_as_well(submit: Submit) -> None:
    told = submit("--help").stdout
    assert "[-- SBATCH OPTIONS]" in told
    for option in ("--array", "--time", "--dry-run", "--choices", "--num-epochs", "--store"):
        assert option in told
