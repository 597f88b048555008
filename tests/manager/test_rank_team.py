"""Rank 0 and another rank in two threads of one process: what they tell each other, without torch's process groups."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from jimmy_manager import Manager
from jimmy_manager.errors import HookError, RankFailed, Stopped
from jimmy_manager.manager import rank_leader, rank_member
from jimmy_manager.manager.rank_follower import Follower
from jimmy_manager.manager.rank_leader import Leader
from jimmy_manager.manager.rank_line import Place
from jimmy_manager.manager.schedule import BatchReport

PATIENCE_S = 60


class Shared(dict):
    """A rendezvous store of one process."""

    def __init__(self):
        self._is_set = threading.Event()

    def set(self, key, value):
        self[key] = value.encode()
        self._is_set.set()

    def get(self, key):
        assert self._is_set.wait(PATIENCE_S)
        return self[key]


class NoGroup:
    """Says what would become of the process group."""

    def __init__(self, *place):
        self.calls = []

    def renew(self, number):
        self.calls.append(f"renew {number}")

    def leave(self):
        self.calls.append("leave")

    def abort(self):
        self.calls.append("abort")


@pytest.fixture
def members(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    store = Shared()
    monkeypatch.setattr(rank_member, "rendezvous", lambda: store)
    monkeypatch.setattr(rank_member, "Group", NoGroup)
    monkeypatch.setattr(rank_leader, "GRACE_S", 0.1)
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(Follower, Place(1, 2), "cpu")
        pair = Leader(Place(0, 2), "cpu"), other.result(PATIENCE_S)
    yield pair
    for member in pair:
        member._close()


class Noted(Manager):
    """Writes down which hooks are called; ``faults`` are called in them."""

    name = "Noted"

    def __init__(self, store, **faults):
        super().__init__(store, device="cpu", verbose=False)
        self.called, self.faults = [], faults

    def note(self, hook):
        self.called.append(f"{hook} {self.epoch}")
        if hook in self.faults:
            self.faults[hook](self)

    def setup(self, config):
        super().setup(config)
        self.note("setup")

    def init_ckpt(self):
        super().init_ckpt()
        self.note("init")

    def load_ckpt(self):
        super().load_ckpt()
        self.note("load")

    def train(self):
        self.note("train")

    def eval(self):
        self.note("eval")
        return {"loss": self.epoch}

    def save_ckpt(self):
        self.note("save")
        super().save_ckpt()

    def end_run(self, is_done):
        self.note(f"end {is_done}")


def together(members, first, second, calls=("batch", "batch"), configs=({"lr": 1},), **batch):
    """What both ranks return, or the exceptions that they raise."""

    def follow():
        return members[1].take_part(second, calls[1], None)

    def lead():
        return members[0].take_part(first, calls[0], lambda: first.batch(configs, **{"num_epochs": 2, **batch}))

    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(follow)
        results = []
        for get in (lead, lambda: other.result(PATIENCE_S)):
            try:
                results.append(get())
            except Exception as error:  # noqa: BLE001  # whatever came of it is looked at
                results.append(error)
    return results


ONCE = ["setup 0", "init 0", "eval 0", "save 0", "train 0", "eval 1", "save 1", "train 1", "eval 2", "save 2"]


def test_both_ranks_call_the_same_hooks_and_return_the_same(members, tmp_path):
    first, second = Noted(tmp_path), Noted(tmp_path)
    one, two = together(members, first, second)
    assert first.called == second.called == [*ONCE, "end True 2"]
    assert one == two == BatchReport(done=one.done)
    assert first.store.claims.look(one.done[0]).claims == (1, 2)


def test_both_ranks_go_on_from_what_rank_0_has_committed(members, tmp_path):
    together(members, Noted(tmp_path), Noted(tmp_path), num_epochs=1)
    first, second = Noted(tmp_path), Noted(tmp_path)
    together(members, first, second, num_epochs=2)
    assert first.called == second.called == ["setup 0", "load 1", "train 1", "eval 2", "save 2", "end True 2"]
    assert second.ckpt["eval_records"] == {0: {"loss": 0}, 1: {"loss": 1}, 2: {"loss": 2}}


def test_what_is_complete_needs_no_step(members, tmp_path):
    together(members, Noted(tmp_path), Noted(tmp_path))
    first, second = Noted(tmp_path), Noted(tmp_path)
    _, two = together(members, first, second)
    assert (first.called, second.called, len(two.skipped)) == ([], [], 1)


def bad(manager):
    if manager.config.lr == 1:
        raise ValueError("of this rank")


def test_what_another_rank_raises_is_the_failure_of_the_run_and_the_group_is_as_it_was(members, tmp_path):
    first, second = Noted(tmp_path), Noted(tmp_path, train=bad)
    one, two = together(members, first, second, configs=[{"lr": 1}, {"lr": 2}], max_errors=9)
    assert (len(one.failed), len(one.done)) == (1, 1)
    assert one == two
    assert first.store.standing(one.failed[0]).record.error["message"] == "rank 1 of 2 raised ValueError: of this rank"
    assert [member._group.calls for member in members] == [[], []]  # both ended their step


def test_a_rank_that_waits_for_one_that_raised_is_sent_out_of_the_group_which_is_made_anew(members, tmp_path):
    def wait_for_the_other(manager):
        if manager.config.lr == 1:  # until it leaves, as in an exchange of gloo's
            while "leave" not in members[1]._group.calls:
                pass
            raise RuntimeError("connection closed by peer")

    first, second = Noted(tmp_path, train=wait_for_the_other), Noted(tmp_path, train=bad)
    one, two = together(members, first, second, configs=[{"lr": 1}, {"lr": 2}], max_errors=9)
    assert (len(one.failed), len(one.done)) == (1, 1)
    assert one == two
    assert first.store.standing(one.failed[0]).record.error["message"] == "rank 1 of 2 raised ValueError: of this rank"
    assert [member._group.calls[-1] for member in members] == ["renew 1", "renew 1"]


def test_what_rank_0_raises_is_raised_as_it_is_there_and_by_name_elsewhere(members, tmp_path):
    one, two = together(members, Noted(tmp_path, eval=bad), Noted(tmp_path))
    assert (type(one), str(one)) == (ValueError, "of this rank")
    assert (type(two), str(two)) == (RankFailed, "rank 0 of 2 raised ValueError: of this rank")


def test_what_all_ranks_raise_is_that_of_rank_0(members, tmp_path):
    one, two = together(members, Noted(tmp_path, setup=bad), Noted(tmp_path, setup=bad))
    assert (type(one), type(two)) == (ValueError, RankFailed)


def test_ranks_that_are_not_at_the_same_epoch_are_found_out(members, tmp_path):
    def run_ahead(manager):
        manager.epoch += 1

    one, two = together(members, Noted(tmp_path), Noted(tmp_path, train=run_ahead))
    assert type(one) is type(two) is HookError
    assert str(one) == "rank 1 of 2 is at epoch 2 after train, rank 0 at epoch 1; a hook has set it on one alone"


def test_a_pause_of_one_rank_alone_is_found_out(members, tmp_path):
    def pause(manager):
        manager.stop.set("one's own reason")
        manager.pause()

    one, _ = together(members, Noted(tmp_path), Noted(tmp_path, train=pause))
    assert "rank 1 of 2 is at epoch 0 after train" in str(one)


def test_a_stop_that_reaches_another_rank_stops_rank_0_after_its_epoch(members, tmp_path):
    def ask(manager):
        manager.stop.set("SIGTEST")
        asked.set()

    def wait(manager):
        assert asked.wait(PATIENCE_S)
        while not manager.stop:
            pass

    asked = threading.Event()
    first = Noted(tmp_path, train=wait)
    one, two = together(members, first, Noted(tmp_path, train=ask), num_epochs=9)
    assert one.stopped == two.stopped == "SIGTEST"
    assert first.called[-3:] == ["eval 1", "save 1", "end False 1"]


def test_ranks_that_make_different_calls_are_told(members, tmp_path):
    one, two = together(members, Noted(tmp_path), Noted(tmp_path), calls=("batch", "process"))
    assert str(one) == str(two)
    assert "rank 1 of 2 called process() where rank 0 called batch()" in str(one)


def test_a_rank_that_is_gone_ends_the_batch_and_the_run_is_released(members, tmp_path):
    def vanish(manager):
        members[1]._lines[0]._socket.shutdown(2)
        raise ValueError("which nobody hears of")

    first = Noted(tmp_path)
    one, two = together(members, first, Noted(tmp_path, train=vanish), configs=[{"lr": 1}, {"lr": 2}], max_errors=9)
    assert one == BatchReport(stopped="the loss of rank 1 of 2")
    assert type(two) is Stopped
    assert [first.store.standing(key).state for key in first.configs] == ["released"]
    assert first.called[-1] == "end False 1"
    one, _ = together(members, Noted(tmp_path), Noted(tmp_path))
    assert str(one) == "rank 1 of 2 is gone; start all ranks again"


def test_a_rank_whose_rank_0_is_gone_leaves(members, tmp_path):
    def vanish(manager):
        members[0]._lines[1]._socket.shutdown(2)

    _, two = together(members, Noted(tmp_path, train=vanish), Noted(tmp_path))
    assert "rank 0 is gone, and rank 1 of 2 cannot go on without it" in str(two)
