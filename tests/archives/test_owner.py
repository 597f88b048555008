from __future__ import annotations

import ctypes
import os
import pwd
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from jimmy_manager.archives import owner as owners
from jimmy_manager.archives.owner import Owner, is_provably_dead, this_process, this_worker
from jimmy_manager.slurm import Job

ROOT = Path(owners.__file__).parents[2]
SAY = "from jimmy_manager.archives.owner import this_process; print(*this_process()[:5], flush=True); "

Start = Callable[[str], tuple[subprocess.Popen[str], Owner]]

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="death is provable on Linux alone")


@pytest.fixture
def start() -> Iterator[Callable[[str], tuple[subprocess.Popen[str], Owner]]]:
    """Start a Python process that says who it is and then runs ``program``."""
    started: list[subprocess.Popen[str]] = []

    def run(program: str) -> tuple[subprocess.Popen[str], Owner]:
        process = subprocess.Popen([sys.executable, "-c", SAY + program], stdout=subprocess.PIPE, text=True, cwd=ROOT)
        started.append(process)
        assert process.stdout is not None
        host, pid, ticks, boot, pidns = process.stdout.readline().split()
        return process, Owner(host, int(pid), int(ticks), boot, pidns)

    yield run
    for process in started:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][:1]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_an_owner_comes_back_from_its_record() -> None:
    without_proc = Owner("h", 1, 0, "", "")
    for owner in (this_process(), Owner("h", 1, 2, "b", "n", "SLURM_JOB_ID=3", "ada"), without_proc):
        assert Owner.of_record(owner.as_record()) == owner
    assert without_proc.as_record() == {"host": "h", "pid": 1, "start": 0}
    assert Owner.of_record({"host": "h", "pid": 1, "start": 0, "later": "field"}) == without_proc


def test_this_process_is_alive_and_itself() -> None:
    here = this_process()
    assert here.pid == os.getpid()
    assert here.start > 0
    assert here.is_same_process(this_process())
    assert not is_provably_dead(here)


@pytest.fixture
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    """Be in a job that Slurm does not tell of."""
    told = {
        "SLURM_CLUSTER_NAME": "lab", "SLURM_JOB_ID": "15", "SLURM_ARRAY_JOB_ID": "12", "SLURM_ARRAY_TASK_ID": "3",
        "SLURM_RESTART_COUNT": "2", "SLURMD_NODENAME": "n4", "SLURM_JOB_USER": "ada", "PATH": "",
    }  # fmt: skip
    for name, value in told.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("task")
def test_a_claimant_names_its_job_which_does_not_decide() -> None:
    assert this_process().slurm == ""
    owner = this_worker()
    assert owner.slurm == (
        "SLURM_CLUSTER_NAME=lab,SLURM_JOB_ID=15,SLURM_ARRAY_JOB_ID=12,SLURM_ARRAY_TASK_ID=3,SLURM_RESTART_COUNT=2,"
        "SLURMD_NODENAME=n4,SLURM_JOB_USER=ada"
    )
    assert owner.is_same_process(this_process())


@pytest.mark.usefixtures("task")
def test_an_owner_knows_its_job_of_an_array_which_attempt_it_is_and_whose() -> None:
    owner = Owner.of_record(this_worker().as_record())
    assert owner.job == Job(15, 12, 3, 2, "n4", "ada", "lab")
    assert (owner.node, str(owner)) == ("n4", f"n4:{os.getpid()} (job 12_3)")
    outside = owner._replace(slurm="")
    assert (outside.job, outside.node) == (None, owner.host)


def test_an_owner_tells_its_user_also_where_the_number_has_no_name(monkeypatch: pytest.MonkeyPatch) -> None:
    owners._owner_of.cache_clear()
    assert this_process().user == pwd.getpwuid(os.getuid()).pw_name
    owners._owner_of.cache_clear()
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    assert this_process().user == "4000000000"
    owners._owner_of.cache_clear()


def test_a_fork_is_another_owner() -> None:
    parent = this_process()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, repr(tuple(this_process())).encode())
        os._exit(0)
    os.waitpid(child, 0)
    told = os.read(reader, 1 << 16).decode()
    os.close(reader)
    os.close(writer)
    assert f" {child}, " in told
    assert told != repr(tuple(parent))


def test_a_fork_forgets_what_its_ancestors_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """A child may get the number of an ancestor that is gone; the start time it remembers would then be that one's."""
    this_process()
    assert owners._owner_of.cache_info().currsize
    child = os.fork()
    if child == 0:
        os._exit(owners._owner_of.cache_info().currsize)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_live_process_is_not_dead_and_a_stopped_one_neither(start: Start) -> None:
    process, owner = start("import time; time.sleep(60)")
    assert not is_provably_dead(owner)
    process.send_signal(signal.SIGSTOP)
    wait_until(lambda: state_of(process.pid) == "T")
    assert not is_provably_dead(owner)


def test_a_zombie_is_dead_and_so_is_what_was_reaped(start: Start) -> None:
    process, owner = start("import time; time.sleep(60)")
    process.kill()
    wait_until(lambda: state_of(process.pid) == "Z")
    assert is_provably_dead(owner)
    process.wait()
    assert is_provably_dead(owner)


EXIT_FIRST_THREAD = """
import ctypes, threading, time
threading.Thread(target=time.sleep, args=(60,)).start()
ctypes.CDLL(None).syscall({number}, 0)
"""


@pytest.mark.skipif(os.uname().machine not in ("x86_64", "aarch64"), reason="the number of exit(2) is not known here")
def test_a_process_whose_first_thread_ended_is_alive(start: Start) -> None:
    number = {"x86_64": 60, "aarch64": 93}[os.uname().machine]
    process, owner = start(EXIT_FIRST_THREAD.format(number=number).replace("\n", "; ").strip("; "))
    wait_until(lambda: state_of(process.pid) == "Z")
    assert not is_provably_dead(owner), "its other threads go on, and may be in the middle of a write"
    process.kill()
    process.wait()
    assert is_provably_dead(owner)


def test_another_start_time_under_one_pid_is_another_process() -> None:
    here = this_process()
    assert is_provably_dead(here._replace(start=here.start - 1))
    assert not here.is_same_process(here._replace(start=here.start - 1))


@pytest.mark.parametrize("change", [{"boot": "other"}, {"pidns": "1"}, {"boot": ""}, {"pidns": ""}, {"start": 0}])
def test_death_is_never_proven_across_hosts_boots_and_containers(change: dict[str, object]) -> None:
    gone = this_process()._replace(pid=2**22 + 1)
    assert is_provably_dead(gone)
    assert not is_provably_dead(gone._replace(**change))
    reused = this_process()._replace(start=this_process().start - 1)
    assert not is_provably_dead(reused._replace(**change))


def test_where_the_system_tells_nothing_two_processes_are_never_one() -> None:
    """Two machines without /proc: the same pid on both, and no more is known."""
    mac = Owner("mac1", 501, 0, "", "")
    assert not mac.is_same_process(mac._replace(host="mac2"))
    unknown_start = this_process()._replace(start=0)
    assert not unknown_start.is_same_process(unknown_start)
    assert not is_provably_dead(mac)


def test_the_hosts_name_does_not_decide() -> None:
    assert this_process().is_same_process(this_process()._replace(host="renamed", slurm="x"))


def test_a_process_that_proc_hides_is_not_dead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With hidepid=2 the processes of other users have no folder in /proc, and a signal to them is refused."""
    monkeypatch.setattr(owners, "_PROC", tmp_path)
    here = Owner("h", 1, 5, "boot", "ns")
    monkeypatch.setattr(owners, "this_process", lambda: here)

    def refused(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", refused)
    assert not is_provably_dead(here._replace(pid=4242))
    monkeypatch.setattr(os, "kill", lambda pid, number: None)
    assert not is_provably_dead(here._replace(pid=4242))


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_a_live_process_of_another_user_is_not_dead() -> None:
    here = this_process()
    child = os.fork()
    if child == 0:
        os.setgid(65534)
        os.setuid(65534)
        os._exit(is_provably_dead(here))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize("name", ["a) Z 1 (b", "x y", "((", "))"])
def test_a_command_name_cannot_pass_for_a_state(name: str) -> None:
    libc = ctypes.CDLL(None)
    before = Path("/proc/self/comm").read_text().strip()
    libc.prctl(15, name.encode(), 0, 0, 0)
    try:
        owners._owner_of.cache_clear()
        assert this_process().start == int(Path("/proc/self/stat").read_text().rpartition(") ")[2].split()[19])
        assert not is_provably_dead(this_process())
    finally:
        libc.prctl(15, before.encode(), 0, 0, 0)
        owners._owner_of.cache_clear()


def test_a_real_container_is_another_namespace_and_proves_nothing() -> None:
    if os.getuid() != 0 or subprocess.run(["unshare", "--pid", "--fork", "true"], capture_output=True).returncode != 0:
        pytest.skip("needs the right to make a pid namespace")
    command = ["unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", SAY]
    told = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()
    inside = Owner(told[0], int(told[1]), int(told[2]), told[3], told[4])
    assert inside.boot == this_process().boot
    assert inside.pidns != this_process().pidns
    assert inside.pid < 10
    assert not is_provably_dead(inside), "its number is that of one of our system's first processes"


def test_two_containers_with_one_host_name_one_boot_id_and_equal_pids_prove_nothing_of_each_other(start: Start) -> None:
    """What is told of one is a proof for whoever shares its kernel and its numbering alone."""
    process, owner = start("import time; time.sleep(60)")
    elsewhere = owner._replace(pidns=f"{int(owner.pidns.partition('/')[0]) + 1}")
    process.kill()
    process.wait()
    assert is_provably_dead(owner)
    assert not is_provably_dead(elsewhere)
    assert not elsewhere.is_same_process(owner)


def unshared(*options: str, code: str) -> list[str]:
    """What Python prints that runs ``code`` in namespaces of its own."""
    if os.getuid() != 0 or subprocess.run(["unshare", *options, "true"], capture_output=True).returncode != 0:
        pytest.skip(f"needs the right to call 'unshare {' '.join(options)}'")
    command = ["unshare", *options, sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT).stdout.split()


def test_where_proc_shows_the_numbers_of_another_namespace_nothing_is_proven() -> None:
    """Number 1 of the new namespace is in that /proc the first process of the system, and so on."""
    code = "from jimmy_manager.archives.owner import this_process; o = this_process(); print(o.pid, o.start, [o.boot])"
    assert unshared("--pid", "--fork", code=code) == ["1", "0", "['']"]


def test_another_time_namespace_is_another_owner_as_its_start_times_are_shifted(start: Start) -> None:
    _, living = start("import time; time.sleep(60)")
    code = (
        "from jimmy_manager.archives import owner; "
        f"print(owner._start_ticks({living.pid}), owner.is_provably_dead(owner.Owner(*{tuple(living)!r})))"
    )
    shifted, verdict = unshared("--time", "--fork", "--boottime", "100000", code=code)
    assert int(shifted) != living.start, "or nothing is tested"
    assert verdict == "False", "it lives"
