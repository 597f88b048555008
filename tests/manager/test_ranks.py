"""Several ranks under a real torchrun are one worker, whatever becomes of one of them."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from jimmy_manager import Manager, Store
from jimmy_manager.cli.main import main
from jimmy_manager.errors import HookError
from jimmy_manager.manager import rank_line, rank_states
from jimmy_manager.manager.rank_line import Line, Place, here, lines
from jimmy_manager.manager.ranks import Alone, failure_of
from tests.manager.rank_runs import JOB, PATIENCE_S, claims, ended, key_of, results, run, start, torchrun


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("pair")
    printed = run(store)
    assert "2 done, 0 complete before" in printed
    return store


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> Path:
    store = tmp_path_factory.mktemp("own")
    assert "2 done, 0 complete before" in run(store, "Own")
    return store


def test_two_ranks_train_what_one_process_would_as_one_worker(pair, tmp_path):
    run(tmp_path, ranks=1)
    alone, together = Store(tmp_path, read_only=True), Store(pair, read_only=True)
    assert sorted(alone.keys()) == sorted(together.keys())
    for key in alone.configs:
        one, two = alone.ckpts[key]["model"], together.ckpts[key]["model"]
        assert all(torch.allclose(one[name], two[name], rtol=1e-6, atol=1e-9) for name in one)
        assert dict(together.previews[key]) == pytest.approx(dict(alone.previews[key]), rel=1e-6)
        assert together.stats[key]["step"] == alone.stats[key]["step"] == 4 * 8
    for seed in (3, 4):
        assert claims(pair, seed) == ["held", "done"]  # one generation, and the mark of its end
        (log,) = Path(together.logs(key_of(pair, seed))).glob("evals.*")
        assert [json.loads(line)["epoch"] for line in log.read_text().splitlines()] == [0, 1, 2, 3, 4]  # rank 0 alone
    reports = [(pair / f"report-{rank}.txt").read_text() for rank in (0, 1)]
    assert reports == ["2 done, 0 complete before"] * 2


def test_a_killed_rank_costs_what_was_not_saved_and_its_job_goes_on_to_the_same_bytes(own, tmp_path):
    printed = run(tmp_path, "Own", restarts=1, fault="1 8 kill")
    assert "the loss of rank 1 of 2" in printed
    assert "goes on after epoch 2/4" in printed
    assert claims(tmp_path, 3) == ["released", "held", "done"]
    assert claims(tmp_path, 4) == ["held", "done"]
    assert results(tmp_path) == results(own)
    numbers = [name for name in results(own)[3] if name.startswith(".random_state.others.0.")]
    assert any(results(own)[3][name] != results(own)[3][name.replace("others.0.", "")] for name in numbers)


def test_what_one_rank_raises_fails_the_run_by_its_name_and_the_next_run_is_trained(pair, tmp_path):
    printed = run(tmp_path, fault="1 10 raise")
    assert "RankFailed: rank 1 of 2 raised ValueError: a bad batch" in printed
    assert "1 done, 0 complete before, 1 failed" in printed
    assert claims(tmp_path, 3) == ["failed"]
    error = Store(tmp_path, read_only=True).standing(key_of(tmp_path, 3)).record.error
    assert "on rank 1 of 2:" in error["traceback"]
    assert 'raise ValueError("a bad batch, which only one rank saw")' in error["traceback"]
    assert results(tmp_path)[4] == results(pair)[4]


def test_a_stop_signal_to_one_rank_stops_all_at_one_step_and_the_rest_ends_in_the_same_bytes(pair, tmp_path):
    printed = run(tmp_path, fault="1 10 term", STEP_S="0.3")  # about once a second they ask each other
    assert "0 done, 0 complete before; stopped by SIGTERM" in printed
    assert claims(tmp_path, 3) == ["released"]
    commit = Store(tmp_path, read_only=True).stats[key_of(tmp_path, 3)]
    assert (commit["epoch"], 10 <= commit["step"] < 16) == (1, True)  # within its second epoch
    assert "2 done, 0 complete before" in run(tmp_path)
    assert results(tmp_path) == results(pair)


# ---- what takes longer


@pytest.mark.nightly
@pytest.mark.parametrize("fault", ["0 8 kill", "1 8 exit", "0 8 term", "1 8 kill,0 11 kill,1 105 kill"])
def test_whichever_rank_is_lost_or_stopped_the_job_goes_on_to_the_same_bytes(own, tmp_path, fault):
    run(tmp_path, "Own", restarts=4, fault=fault)
    assert claims(tmp_path, 4)[-1] == "done"
    assert results(tmp_path) == results(own)


@pytest.mark.nightly
def test_with_the_random_states_of_rank_0_another_rank_would_go_on_otherwise(own, tmp_path):
    run(tmp_path, "Own", "forget", restarts=1, fault="1 8 kill")
    assert results(tmp_path)[4] == results(own)[4]
    assert results(tmp_path)[3] != results(own)[3]


@pytest.mark.nightly
def test_ranks_on_two_nodes_are_one_worker_and_go_on_after_a_loss(tmp_path):
    for store, fault in ((tmp_path / "once", ""), (tmp_path / "lost", "3 10 kill")):
        with socket.create_server(("127.0.0.1", 0)) as free:
            endpoint = f"127.0.0.1:{free.getsockname()[1]}"
        options = ("--nnodes=2", "--nproc-per-node=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={endpoint}",
                   "--rdzv-id=test", "--max-restarts=3")  # fmt: skip
        nodes = [start([*torchrun(*options), str(JOB), "Pair", str(store)], FAULT=fault) for _ in range(2)]
        printed = "".join(ended(node) for node in nodes)
        assert "2 done, 0 complete before" in printed
        assert ("the loss of rank 3 of 4" in printed) == bool(fault)
    assert results(tmp_path / "lost") == results(tmp_path / "once")


@pytest.mark.nightly
@pytest.mark.parametrize(("fault", "state"), [("0 10 sleep,1 10 kill", "released"), ("1 10 sleep,0 10 kill", "held")])
def test_a_rank_that_hangs_beside_a_lost_one_ends_all_the_same(tmp_path, fault, state):
    printed = run(tmp_path, fault=fault)
    assert "hangs" in printed
    assert claims(tmp_path, 3) == [state]


@pytest.mark.nightly
def test_a_rank_that_hangs_beside_one_that_raised_fails_the_run_by_its_name(tmp_path):
    printed = run(tmp_path, fault="0 10 sleep,1 10 raise")
    assert "rank 0 hangs in train() after the failure of rank 1 of 2" in printed
    assert claims(tmp_path, 3) == ["failed"]


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["SIGTERM", "SIGUSR2"])
def test_a_signal_to_torchrun_stops_all_ranks_at_one_step_and_the_rest_ends_in_the_same_bytes(pair, tmp_path, name):
    options = ("--standalone", "--nproc-per-node=2", "--signals-to-handle=SIGTERM,SIGINT,SIGUSR2")
    job = start([*torchrun(*options), str(JOB), "Pair", str(tmp_path)], STEP_S="0.3")
    while not list(tmp_path.glob("stats/*/*")):
        assert job.poll() is None
        time.sleep(0.1)
    job.send_signal(signal.Signals[name])
    assert f"stopped by {name}" in ended(job)
    assert claims(tmp_path, 3) == ["released"]
    assert 0 < Store(tmp_path, read_only=True).stats[key_of(tmp_path, 3)]["step"] < 16
    assert "2 done, 0 complete before" in run(tmp_path)
    assert results(tmp_path) == results(pair)


def by_hand(store: Path, *options: str, kind: str = "Pair", **env: str) -> list[subprocess.Popen]:
    """Two ranks without an agent of torchrun's, as ``srun`` starts them."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    place = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    command = [sys.executable, str(JOB), kind, str(store), *options]
    return [start(command, **env, **place, RANK=str(rank), LOCAL_RANK=str(rank)) for rank in (0, 1)]


@pytest.mark.nightly
@pytest.mark.parametrize("lost", [0, 1])
@pytest.mark.parametrize("how", ["kill", "orphan"])
def test_without_an_agent_the_other_rank_leaves_within_seconds_of_a_loss(tmp_path, lost, how):
    ranks = by_hand(tmp_path, FAULT=f"{lost} 10 {how}")
    try:
        assert ranks[lost].wait(timeout=PATIENCE_S) == -signal.SIGKILL
        since = time.monotonic()
        assert ranks[1 - lost].wait(timeout=PATIENCE_S) == 1
        assert time.monotonic() - since < 60  # 1 s on an idle machine; 11 s where a child keeps gloo's lines open
    finally:
        printed = [ended(rank) for rank in ranks]
    assert ("rank 0 is gone" if (lost, how) == (0, "kill") else f"the loss of rank {lost}") in printed[1 - lost]
    assert claims(tmp_path, 3) == [("held", "released")[lost]]


@pytest.mark.nightly
def test_ranks_wait_while_rank_0_waits_for_the_run_of_another_worker(own, tmp_path):
    other = start([sys.executable, str(JOB), "Own", str(tmp_path)], FAULT="0 2 sleep")
    while not list(tmp_path.glob("fault *")):
        assert other.poll() is None
        time.sleep(0.1)
    ranks = by_hand(tmp_path, "wait", kind="Own")
    try:
        while "done" not in claims(tmp_path, 3)[-1:] and len(claims_of(tmp_path, 4)) < 2:
            assert all(rank.poll() is None for rank in ranks)
            time.sleep(0.2)
        time.sleep(5)  # they wait for the other run
        assert all(rank.poll() is None for rank in ranks)
        other.kill()
        printed = [ended(rank) for rank in ranks]
    finally:
        ended(other)
        for rank in ranks:
            ended(rank)
    assert "2 done, 0 complete before" in printed[0]
    assert results(tmp_path)[4] == results(own)[4]


def claims_of(store: Path, seed: int) -> list[str]:
    try:
        return claims(store, seed)
    except StopIteration:
        return []


@pytest.mark.nightly
def test_more_ranks_go_on_with_what_fewer_have_saved_and_say_that_it_is_another_training(tmp_path):
    run(tmp_path, "Own", ranks=1, fault="0 8 term")
    printed = run(tmp_path, "Own", ranks=3)
    assert "was saved by 1 ranks and goes on with 3, so it does not go on bit by bit" in printed
    assert "2 done, 0 complete before" in printed
    saved = results(tmp_path)[3]
    states = [saved[f".random_state{other}.torch"] for other in ("", ".others.0", ".others.1")]
    assert len(set(states)) == 3


# ---- without processes


def test_where_torchrun_started_nothing_a_process_is_alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    assert here() == Place(0, 1)
    monkeypatch.setenv("WORLD_SIZE", "4")  # some batch script's own
    assert here() == Place(0, 1)
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    assert here() == Place(2, 4)
    assert here().name() == "rank 2 of 4"


@pytest.fixture
def second_of_two(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)


def test_a_store_in_memory_is_refused_to_several_ranks(second_of_two):
    with pytest.raises(HookError, match="2 ranks cannot share a store in memory; give the Manager a store_dir"):
        Manager(None, verbose=False).process({}, num_epochs=1)


def test_a_pool_of_workers_is_refused_to_several_ranks(second_of_two, capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["sweep", str(JOB), "--workers", "2"])
    assert "different runs, but this is rank 1 of 2, which train each run" in capsys.readouterr().err


class Shared(dict):
    """A rendezvous store of one process."""

    def set(self, key, value):
        self[key] = value.encode()

    def get(self, key):
        while key not in self:
            time.sleep(0.01)
        return self[key]


@pytest.fixture
def connected(second_of_two):
    """Both ends of a line, once rank 1 has knocked at a closed door and a stranger at rank 0's."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        gone = closed.getsockname()[1]
    store = Shared({"jimmy/line": f"127.0.0.1 {gone} of-an-earlier-attempt".encode()})
    found = {}

    def meet(rank: int) -> None:
        found[rank] = lines(Place(rank, 2), store)

    calls = [threading.Thread(target=meet, args=(rank,)) for rank in (1, 0)]
    for call in calls:
        call.start()
    while b"of-an-earlier-attempt" in store["jimmy/line"]:
        time.sleep(0.01)
    door = ("127.0.0.1", int(store["jimmy/line"].split()[1]))
    with contextlib.suppress(OSError), socket.create_connection(door) as stranger:  # rank 0 may be through with it
        stranger.sendall(b"guessed 1\n")
        assert stranger.recv(100) == b""
    for call in calls:
        call.join(timeout=60)
    assert found[0][0] == found[1][0]
    ends = found[0][1][1], found[1][1][0]
    yield ends
    for end in ends:
        end.close()


def received(line: Line) -> list[dict]:
    messages = []
    while not messages:
        messages += line.receive()
    return messages


def test_messages_of_any_size_go_both_ways_and_the_end_of_a_rank_is_noticed(connected):
    first, second = connected
    first.send("step", name="train", config={"lr": 1e-3, "name": "ä\n"})
    assert received(second) == [{"what": "step", "name": "train", "config": {"lr": 1e-3, "name": "ä\n"}}]
    sender = threading.Thread(target=second.send, args=("states",), kwargs={"states": "x" * 1_000_000})
    sender.start()
    assert len(received(first)[0]["states"]) == 1_000_000
    sender.join(timeout=60)
    second.close()
    assert first.receive() is None


def test_rank_0_says_which_rank_did_not_come(second_of_two, monkeypatch):
    monkeypatch.setattr(rank_line, "JOIN_S", 0.1)
    with pytest.raises(HookError, match=r"of 3 ranks, 1, 2 did not begin to train within 0.1 s"):
        lines(Place(0, 3), Shared())


def test_each_rank_gets_its_own_random_states_back(caplog):
    states = [{"torch": torch.full((3,), rank, dtype=torch.uint8)} for rank in range(3)]
    saved = rank_states.joined(states[0], [rank_states.packed(each) for each in states[1:]])
    for rank in range(3):
        member = Alone()
        member.place = Place(rank, 3)
        assert torch.equal(member.own(saved, "abc")["torch"], states[rank]["torch"])
    assert not caplog.text
    Alone().own(saved, "abc")
    assert "run abc was saved by 3 ranks and goes on with 1, so it does not go on bit by bit" in caplog.text


def test_the_failure_of_another_rank_shows_its_traceback():
    import traceback

    failure = failure_of("rank 2 of 4", {"type": "ValueError", "message": "no", "traceback": "  File x, line 3\n"})
    shown = "".join(traceback.format_exception(failure))
    assert "on rank 2 of 4:\n  File x, line 3" in shown
    assert shown.rstrip().endswith("RankFailed: rank 2 of 4 raised ValueError: no")
