"""What is concluded from each answer of squeue.

The squeue here is a program of ours, put first in PATH: it answers as a test says, so these tests show nothing of a
real Slurm; ``tests/cluster/test_verdict.py`` asks one.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from jimmy_manager import slurm, slurm_queue
from jimmy_manager.errors import SlurmError
from jimmy_manager.slurm import Job
from jimmy_manager.slurm_queue import Queue, is_over, parse

HERE = Job(5, user="ada", cluster="lab")
OURS = Job(7, restarts=1, user="ada", cluster="lab")
FAKE = """#!{python}
import sys
from pathlib import Path
here = Path(__file__).parent
with open(here / "calls", "a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
exec((here / "behaviour").read_text())
"""

Answer = Callable[[str], None]


class Clock:
    def __init__(self) -> None:
        self.t = 0.0

    def __call__(self) -> float:
        return self.t


@pytest.fixture
def squeue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Answer:
    """Put a squeue (and an scontrol) first in PATH, and say with Python code what it does."""
    for name in ("squeue", "scontrol"):
        (tmp_path / name).write_text(FAKE.format(python=sys.executable))
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def behave(code: str) -> None:
        (tmp_path / "behaviour").write_text(code)

    behave("")
    return behave


@pytest.fixture
def calls(squeue: Answer, tmp_path: Path) -> Callable[[], list[str]]:
    def read() -> list[str]:
        return (tmp_path / "calls").read_text().splitlines() if (tmp_path / "calls").exists() else []

    return read


def says(*lines: str) -> str:
    return f"print({chr(10).join(lines)!r})"


def verdict(queue: Queue, job: Job = OURS) -> bool:
    """What is known once a question for ``job`` was answered, or not."""
    queue.has_ended(job)
    queue.wait(60)
    return queue.has_ended(job, is_asked=False)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (says(), True),
        (says("8|ada|R|0|"), True),
        (says("7|ada|R|1|"), False),
        (says("7|ada|R|0|"), False),  # it inherited the restarts that it told of itself
        (says("7|ada|PD|1|"), True),
        (says("7|ada|PD|2|"), True),
        (says("7|ada|R|2|"), True),
        (says("7|ada|CG|1|"), False),
        (says("7|ada|CG|2|"), False),
        (says("7|ada|S|1|"), False),
        (says("7|ada|CF|1|"), False),
        (says("7|ada|SO|1|"), False),
        (says("7|ada|RS|1|"), False),
        (says("7|ada|XX|1|"), False),
        (says("7|ada|NF|1|"), True),
        (says("70|ada|R|1|"), True),
    ],
)
def test_a_job_has_ended_when_it_is_gone_has_no_processes_or_was_started_again(
    squeue: Answer, answer: str, expected: bool
) -> None:
    squeue(answer)
    assert verdict(Queue(HERE, "ada")) is expected


@pytest.mark.parametrize(
    "behaviour",
    [
        "sys.exit(1)",
        "print('7|ada|PD|1|'); sys.exit(1)",
        "print('slurm_load_jobs error: Unable to contact slurm controller')",
        "print('6|ada|R|0|'); print('7|ad', end='')",
        "print('CLUSTER: other'); print('6|ada|R|0|')",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
        "sys.stdout.buffer.write(bytes(range(128, 256)))",
    ],
)
def test_what_is_no_answer_is_no_verdict(squeue: Answer, behaviour: str) -> None:
    squeue(behaviour)
    assert not verdict(Queue(HERE, "ada"))


def test_without_a_squeue_there_is_no_verdict(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not verdict(Queue(HERE, "ada"))


def test_a_squeue_that_hangs_holds_nobody_up_and_is_ended(squeue: Answer) -> None:
    squeue("import time; time.sleep(600)")
    queue = Queue(HERE, "ada", ask=lambda command: slurm.ask(command, timeout_s=1.0))
    started = time.monotonic()
    assert not queue.has_ended(OURS)
    asked_s = time.monotonic() - started
    queue.wait(60)
    waited_s = time.monotonic() - started
    assert asked_s < 0.9 <= waited_s, "or the question waited for its answer"
    assert not queue.has_ended(OURS, is_asked=False)


def test_one_call_answers_for_all_jobs_of_all_users(squeue: Answer, calls: Callable[[], list[str]]) -> None:
    squeue(says("7|ada|R|1|", "9|bob|R|0|"))
    clock = Clock()
    queue = Queue(HERE, "ada", monotonic=clock)
    others = [Job(8, user="ada", cluster="lab"), Job(9, user="bob", cluster="lab"), Job(10, user="bob", cluster="lab")]
    queue.has_ended(OURS)
    queue.wait(60)
    for job in others:
        assert not queue.has_ended(job), "the last call began before this question"
    assert len(calls()) == 1
    clock.t = slurm_queue.CALL_EVERY_S
    queue.has_ended(others[0])
    queue.wait(60)
    assert [queue.has_ended(job, is_asked=False) for job in others] == [True, False, True]
    assert len(calls()) == 2
    assert "--user=ada,bob" in calls()[1]


def test_an_answer_from_before_the_question_does_not_count(squeue: Answer) -> None:
    """A job that was submitted a moment ago is in no earlier answer, and lives."""
    squeue(says("6|ada|R|0|"))
    clock = Clock()
    queue = Queue(HERE, "ada", monotonic=clock)
    verdict(queue, Job(6, user="ada", cluster="lab"))
    assert not verdict(queue), "a call is not due, and the last answer is older than this question"
    squeue(says("6|ada|R|0|", "7|ada|R|1|"))
    clock.t = 100.0
    assert not verdict(queue)
    squeue(says("6|ada|R|0|"))
    clock.t = 200.0
    assert verdict(queue)


def test_there_are_15_seconds_between_calls_and_more_after_failures(
    squeue: Answer, calls: Callable[[], list[str]]
) -> None:
    squeue("sys.exit(1)")
    clock = Clock()
    queue = Queue(HERE, "ada", monotonic=clock)
    for second in range(600):
        clock.t = float(second)
        verdict(queue)
    assert len(calls()) == 5, "at 0, 30, 90, 210 and 450 s"


def test_an_end_is_known_for_ever_without_another_call(squeue: Answer, calls: Callable[[], list[str]]) -> None:
    clock = Clock()
    queue = Queue(HERE, "ada", monotonic=clock)
    assert verdict(queue)
    clock.t = 1000.0
    squeue(says("7|ada|R|1|"))
    assert verdict(queue)
    assert len(calls()) == 1


def test_slurm_is_left_alone_where_nobody_asks(calls: Callable[[], list[str]]) -> None:
    queue = Queue(HERE, "ada")
    assert not queue.has_ended(OURS, is_asked=False)
    queue.wait(60)
    assert calls() == []


@pytest.mark.parametrize("cluster", ["", "other"])
def test_of_jobs_of_another_cluster_nothing_is_said(calls: Callable[[], list[str]], cluster: str) -> None:
    queue = Queue(HERE, "ada")
    assert not verdict(queue, OURS._replace(cluster=cluster))
    assert calls() == []


@pytest.mark.parametrize(("name", "expected"), [("lab", True), ("other", False), ("", False)])
def test_outside_of_a_job_the_cluster_is_asked_for_its_name(squeue: Answer, name: str, expected: bool) -> None:
    squeue(f"if 'scontrol' in sys.argv[0]: print('Configuration data\\nClusterName             = {name}\\nX = 1')")
    assert verdict(Queue(None, "ada")) is expected


def test_a_later_attempt_of_the_same_job_knows_that_the_earlier_one_is_over(calls: Callable[[], list[str]]) -> None:
    queue = Queue(OURS._replace(restarts=2, is_told=True), "ada")
    assert queue.has_ended(OURS)
    assert not queue.has_ended(OURS._replace(restarts=2), is_asked=False)
    assert not queue.has_ended(OURS._replace(restarts=3), is_asked=False)
    assert not queue.has_ended(OURS._replace(cluster="other"))
    assert calls() == []


def test_restarts_that_may_be_inherited_are_no_proof(squeue: Answer) -> None:
    squeue(says("7|ada|R|1|"))
    assert not verdict(Queue(OURS._replace(restarts=2), "ada"))


def test_who_may_not_see_the_jobs_of_others_does_not_miss_them() -> None:
    """``PrivateData=jobs`` shows everybody only what is theirs."""
    bobs = Job(9, user="bob", cluster="lab")
    assert not is_over(bobs, parse("7|ada|R|0|\n"), "ada")
    assert is_over(bobs, parse("7|ada|R|0|\n10|bob|R|0|\n"), "ada")
    assert is_over(bobs, {}, "bob")
    assert not is_over(bobs._replace(user=""), {}, "ada")


def test_a_persons_settings_do_not_hide_a_job(
    squeue: Answer, calls: Callable[[], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQUEUE_STATES", "PENDING")
    monkeypatch.setenv("SLURM_CLUSTERS", "other")
    squeue("import os; print('7|ada|R|1|' if not {'SQUEUE_STATES', 'SLURM_CLUSTERS'} & os.environ.keys() else '')")
    assert not verdict(Queue(HERE, "ada"))
    assert "--all" in calls()[0]


@pytest.mark.parametrize("answer", ["7", "a|b|c|d|", "7|ada|R||", "7|ada|R|1|x|", "-7|ada|R|1|"])
def test_half_a_line_is_refused(answer: str) -> None:
    with pytest.raises(SlurmError, match="no line of a queue"):
        parse(answer)
