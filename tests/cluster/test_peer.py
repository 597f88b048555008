"""Two doctors, as two threads with two folders, and on file systems that are not what they seem."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from jimmy_manager import Store
from jimmy_manager.archives import store_file
from jimmy_manager.archives.disk import Disk
from jimmy_manager.cluster import meeting as meetings
from jimmy_manager.cluster import prescription
from jimmy_manager.cluster.consultation import Advice, consult
from jimmy_manager.cluster.delays import COUNTED, KINDS, Delay
from jimmy_manager.cluster.meeting import Meeting, Met
from jimmy_manager.cluster.peer import EXCLUDES, Measured, Offset, Plan, Side
from jimmy_manager.cluster.place import LOST, WON, Place
from jimmy_manager.cluster.races import Tally, Try, tally
from jimmy_manager.cluster.talk import PeerLost, Talk
from jimmy_manager.cluster.verdict import judge
from jimmy_manager.errors import JimmyError, StoreError, UnsafeStore
from tests.archives.runs import attempt_at
from tests.archives.users import ANNA, BERT, interpreter, run_as, shared_place
from tests.cluster.two_winners import LateListings, NoLinks, SharedFiles, SharedLinks
from tests.lab import lab

ROOT = Path(__file__).parents[2]
SHORT = Plan(rounds=5, after_s=(0.0, 0.2), wait_s=30.0)
IMPATIENT = SHORT._replace(wait_s=1.0)
QUIET = "import sys; from jimmy_manager.cli.main import main; main(sys.argv[1:], 'jimmy')"


class Silent:
    """A voice that keeps what it says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def tick(self, text: str) -> None:
        self.said.append(text)


def side(host: str) -> Side:
    return Side(host, f"boot of {host}", "7", "nfs4", "server:/export", 0, os.getpid())


@pytest.fixture
def store(tmp_path: Path) -> Path:
    _ = Store(tmp_path / "store").info
    return tmp_path / "store"


def by_two(
    store: Path, plan: Plan = SHORT, kind: type[Place] = Place, hosts: tuple[str, str] = ("alpha", "beta"), **more: Any
) -> list[Advice | JimmyError]:
    """Let two doctors examine ``store``; what each of them returned or raised."""

    def one(host: str) -> Advice | JimmyError:
        try:
            return consult(str(store), plan, Silent(), timeout_s=120, kind=kind, side=side(host), **more)
        except JimmyError as error:
            return error

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(one, hosts))


def advice_of(found: list[Advice | JimmyError]) -> Advice:
    first, second = found
    assert isinstance(first, Advice), first
    assert isinstance(second, Advice), second
    assert (first.measured, first.recorded) == (second.measured, second.recorded)
    return first


# ---- together


def test_two_doctors_meet_measure_and_record_and_leave_nothing(store: Path) -> None:
    advice = advice_of(by_two(store))
    won = {race.kind: (race.one, race.more) for race in advice.measured.races}
    assert won == {"link": (5, 0), "open": (5, 0), "mkdir": (5, 0), "rename": (5, 0)}
    assert {(each.kind, each.by) for each in advice.measured.delays if each.seen_s is not None} == {
        (kind, by) for kind in KINDS for by in ("leader", "follower")
    }
    assert {advice.measured.leader.host, advice.measured.follower.host} == {"alpha", "beta"}
    assert advice.measured.appended[1] == 200
    info = Store(store).info
    assert info.doctor is not None
    assert info.doctor["file_system"] == "nfs4 (server:/export)"
    assert (info.stale_s, info.lease_s) == (advice.recorded["stale_s"], advice.recorded["lease_s"])
    assert info.refused == ""
    assert sorted(path.name for path in store.iterdir() if "lock" not in path.name) == ["store.yaml"]


def test_one_place_seen_twice_is_no_pair_of_nodes_and_both_hear_of_it(store: Path) -> None:
    found = by_two(store, hosts=("alpha", "alpha"))
    assert all(isinstance(error, StoreError) and "look through one mount" in str(error) for error in found), found
    assert not (store / ".doctor").exists()


_SHIFTED = """
import sys, time
shift, monotonic, now = float(sys.argv[1]), time.monotonic, time.time
time.monotonic, time.time = lambda: monotonic() + 7 * shift, lambda: now() + shift
from jimmy_manager.cluster.delays import COUNTED, worst
from tests.cluster.test_peer import SHORT, Silent, consult, side
found = consult(sys.argv[2], SHORT._replace(rounds=30), Silent(), timeout_s=120, side=side(sys.argv[1])).measured
contended = sum(race.contended for race in found.races)
print(found.leader.host, round(found.clock.seconds / 3600), contended > 0, worst(found.delays, *COUNTED) < 30)
"""


def test_clocks_that_differ_by_an_hour_change_nothing_but_what_is_told(store: Path) -> None:
    """Processes, as each of them needs a clock of its own."""
    command = [sys.executable, "-P", "-c", _SHIFTED]
    started = [
        subprocess.Popen(
            [*command, shift, str(store)], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for shift in ("0", "3600")
    ]  # fmt: skip
    told = [process.communicate(timeout=300) for process in started]
    assert told[0][0] == told[1][0], told
    leader, apart, *rest = told[0][0].split()
    assert (apart, rest) == ("1" if leader == "0" else "-1", ["True", "True"]), told


@pytest.mark.parametrize("step", ["met", "a name by link", "watching"])
def test_whoever_is_interrupted_leaves_nothing_and_the_other_one_hears_of_it(store: Path, step: str) -> None:
    class Interrupted(Silent):
        def say(self, text: str) -> None:
            if text.startswith(step):
                raise KeyboardInterrupt

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(consult, str(store), SHORT, Interrupted(), timeout_s=120, side=side("alpha"))
        second = pool.submit(consult, str(store), SHORT, Silent(), timeout_s=120, side=side("beta"))
        assert isinstance(first.exception(), KeyboardInterrupt)
        assert isinstance(second.exception(), PeerLost), second.exception()
    assert not (store / ".doctor").exists()


def test_nobody_comes(store: Path) -> None:
    with pytest.raises(StoreError, match=r"nobody came within 0\.3 s"):
        consult(str(store), SHORT, Silent(), timeout_s=0.3)
    assert not (store / ".doctor").exists()


def test_without_a_store_there_is_nothing_to_record_in(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="jimmy init"):
        consult(str(tmp_path / "none"), SHORT, Silent(), timeout_s=0.1)
    advice = advice_of(by_two(tmp_path / "none", record=False))
    assert advice.recorded == {}
    assert list(tmp_path.iterdir()) == []


def test_the_longer_look_counts_where_the_two_want_different_ones(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jimmy_manager.cluster.peer.LONG", SHORT)
    with ThreadPoolExecutor(2) as pool:
        quick = pool.submit(
            consult, str(store), SHORT._replace(is_quick=True, rounds=3), Silent(), timeout_s=120, side=side("alpha")
        )
        long = pool.submit(consult, str(store), SHORT, Silent(), timeout_s=120, side=side("beta"))
        assert quick.result().measured.plan == long.result().measured.plan == SHORT


def test_two_users_meet_in_a_store_that_their_group_shares() -> None:
    program = (
        "import sys; from tests.cluster.test_peer import *; "
        "advice = consult('store', SHORT, Silent(), timeout_s=120, side=side(sys.argv[1])); "
        "print(advice.measured.leader.host, advice.recorded['stale_s'])"
    )
    with shared_place() as place:
        interpreter()
        assert run_as(ANNA, place, "-m", "jimmy_manager.cli", "init", "--shared", "group").returncode == 0
        with ThreadPoolExecutor(2) as pool:
            started = [pool.submit(run_as, user, place, "-c", program, str(user[0])) for user in (ANNA, BERT)]
            for each in started:
                assert each.result().returncode == 0, each.result().stderr
        assert len({each.result().stdout for each in started}) == 1
        assert (place / "store/store.yaml").stat().st_mode & 0o777 == 0o660


# ---- file systems that will not do


@pytest.mark.parametrize(
    ("kind", "plan", "reason"),
    [
        (SharedLinks, SHORT, "5 of 5 exclusive creations by link had several winners"),
        (SharedFiles, SHORT, "exclusive creations by O_EXCL had several winners"),
        (LateListings, IMPATIENT, "a new name in a listing was not seen on the other node within 1 s"),
    ],
)
def test_a_file_system_that_cannot_be_safe_is_refused_by_name(
    store: Path, kind: type[Place], plan: Plan, reason: str
) -> None:
    before = Store(store)
    before.register({"lr": 0.1})
    advice = advice_of(by_two(store, plan, kind))
    assert any(remark.forbids and reason in remark.text for remark in advice.remarks), advice.remarks
    assert any("nfs4 (server:/export)" in remark.text for remark in advice.remarks if remark.forbids)
    with pytest.raises(UnsafeStore, match=r"nfs4.*another file system"):
        Store(store).register({"lr": 0.2})
    with pytest.raises(UnsafeStore, match="cannot go on"):
        before.refresh()
    assert list(Store(store, read_only=True).keys()) == list(before.keys())
    # Another examination that finds nothing lifts it.
    prescribed(store, 0.01)
    Store(store).register({"lr": 0.2})


def test_where_there_are_no_links_claims_rest_on_o_excl(store: Path) -> None:
    advice = advice_of(by_two(store, kind=NoLinks))
    (claims,) = [remark for remark in advice.remarks if remark.subject == "claims"]
    assert "no links here" in claims.text
    assert not claims.forbids


# ---- races


def test_a_round_with_two_winners_is_counted_as_such() -> None:
    won, lost = Try(WON, 0.0, 1.0), Try(LOST, 0.5, 1.0)
    found = tally("link", [[[won, won, lost]], [[lost, won, lost]]])
    assert (found.one, found.more, found.none, found.is_safe) == (1, 1, 1, False)
    assert found.contended == 3
    assert str(found) == "1 of 3 races had one winner, 1 had none, 1 had several"
    apart = tally("link", [[[won]], [[Try(LOST, 2.0, 3.0)]]])
    assert (apart.contended, apart.is_safe) == (0, True)


def test_a_race_that_nobody_can_win_is_not_safe() -> None:
    refused = tally("link", [[[Try("ENOTSUP", 0.0, 1.0)]]])
    assert (refused.is_refused, refused.is_safe, str(refused)) == (True, False, "not possible here (ENOTSUP)")


def test_an_error_is_not_believed_where_the_content_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """sshfs says EPERM for EEXIST, and NFS loses the reply to a link that was made."""

    def lose_the_reply(source: str, target: str) -> None:
        link(source, target)
        raise OSError(5, "Input/output error")

    place, link = Place(tmp_path), os.link
    place.put("own-a", b"a")
    place.put("own-b", b"b")
    monkeypatch.setattr(os, "link", lose_the_reply)
    assert place.link("own-a", "target", b"a") == WON
    assert place.link("own-b", "target", b"b") == LOST


# ---- meeting


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("number", [2, 3, 5])
@pytest.mark.parametrize("seed", range(10))
def test_whatever_their_order_doctors_meet_in_pairs_that_agree(tmp_path: Path, number: int, seed: int) -> None:
    draw, clock, place = random.Random(seed), Clock(), Place(tmp_path)
    doctors = [Meeting(place, f"{draw.getrandbits(48):012x}", clock) for _ in range(number)]
    met: dict[str, Met] = {}
    for _ in range(200):
        clock.now += 0.1
        doctor = draw.choice([each for each in doctors if each.token not in met] or doctors)
        if doctor.token not in met and (found := doctor.step()) is not None:
            met[doctor.token] = found
    assert len(met) == number // 2 * 2
    for token, found in met.items():
        partner = met[found.other]
        assert (partner.other, partner.is_leader) == (token, not found.is_leader)
        assert partner.room.root == found.room.root


def test_leftovers_of_crashed_meetings_are_passed_over_and_taken_away(tmp_path: Path) -> None:
    clock, place = Clock(), Place(tmp_path / ".doctor").make()
    for name in ("000000000001.7.free", "000000000001.6.free", "ffffffffffff.9.asks-000000000001"):
        place.create(name, b"")
    room = place.below("room-000000000001-ffffffffffff").below("talk").make()
    room.put("000000000001.1.json", b"{}")
    first, second = Meeting(place, "0" * 11 + "5", clock), Meeting(place, "0" * 11 + "6", clock)
    found = None
    while found is None:
        clock.now += 1.0
        assert clock.now < 60
        found = first.step()
        second.step()
    assert found.other == second.token
    clock.now += 40.0
    second.leave()
    first.leave()
    found.room.clear()
    assert list(tmp_path.iterdir()) == []


def test_a_live_room_is_nobodys_leftover(tmp_path: Path) -> None:
    clock, place = Clock(), Place(tmp_path)
    room = place.below("room-000000000001-ffffffffffff").below("talk").make()
    watching = Meeting(place, "0" * 12, clock)
    clock.now += 40.0
    room.put("000000000001.2.json", b"{}")
    watching.leave()
    assert room.names() == ["000000000001.2.json"]


def test_somebody_who_asked_and_fell_silent_is_given_up(tmp_path: Path) -> None:
    clock, place = Clock(), Place(tmp_path)
    gone, left = Meeting(place, "0" * 12, clock), Meeting(place, "1" * 12, clock)
    for _ in range(3):
        clock.now += 0.1
        left.step()
        gone.step()
    for _ in range(2):
        left.step()
    assert any("takes" in name for name in place.names()), place.names()
    clock.now += meetings.PATIENCE_S + 1
    for _ in range(2):
        left.step()
    assert sum(".free" in name for name in place.names()) == 1


# ---- talking


def test_a_conversation_goes_both_ways_and_in_order(tmp_path: Path) -> None:
    one, two = Talk(Place(tmp_path), "a", "b"), Talk(Place(tmp_path), "b", "a")
    one.send({"x": [1, 2.5, None]})
    one.send("second")
    assert two.receive() == {"x": [1, 2.5, None]}
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(two.swap, "back")
        assert one.swap("third") == "back"
        assert answer.result() == "second"


def test_whoever_is_silent_is_lost(tmp_path: Path) -> None:
    clock = Clock()
    one = Talk(Place(tmp_path), "a", "b", silence_s=5.0, clock=lambda: setattr(clock, "now", clock.now + 1) or clock())
    with pytest.raises(PeerLost, match="no sign for 5 s"):
        one.receive()


def test_a_doctor_who_leaves_is_missed_at_once(tmp_path: Path) -> None:
    place = Place(tmp_path).below("room").make()
    one, two = Talk(place, "a", "b"), Talk(place, "b", "a")
    two.send(1)
    assert one.receive() == 1
    place.clear()
    with pytest.raises(PeerLost, match="was stopped"):
        one.receive()
    with pytest.raises(PeerLost, match="was stopped"):
        one.send(2)


# ---- what it means


def measured(**changes: Any) -> Measured:
    races = tuple(Tally(kind, 100, 100, 0, 0, 60, {}) for kind in ("link", "open", "mkdir", "rename"))
    delays = tuple(Delay(kind, 0.0, "leader", 0.01, 65.0) for kind in KINDS)
    whole = Measured(
        side("alpha"), side("beta"), SHORT, Offset(0.1, 0.01), races, {"flock": EXCLUDES, "fcntl": EXCLUDES},
        (200, 200), delays,
    )  # fmt: skip
    return whole._replace(**changes)


def seen_after(seconds: float | None, kind: str = "listed") -> tuple[Delay, ...]:
    return tuple(Delay(each, 0.0, "leader", seconds if each == kind else 0.01, 65.0) for each in KINDS)


@pytest.mark.parametrize(
    ("late_s", "stale_s", "lease_s"), [(0.002, 3.0, 120.0), (20.02, 33.0, 132.0), (60.0, 92.0, 368.0)]
)
@pytest.mark.parametrize("kind", COUNTED)
def test_stale_s_is_the_worst_with_a_margin(kind: str, late_s: float, stale_s: float, lease_s: float) -> None:
    verdict = judge(measured(delays=seen_after(late_s, kind)))
    assert (verdict.stale_s, verdict.lease_s, verdict.refused) == (stale_s, lease_s, "")
    assert verdict.lease_s is not None
    assert verdict.lease_s >= 4 * stale_s


def test_a_quick_look_lowers_nothing_and_refuses_no_delay() -> None:
    quick = SHORT._replace(is_quick=True)
    assert judge(measured(plan=quick)).stale_s == 30.0
    assert judge(measured(plan=quick, delays=seen_after(20.0))).stale_s == 32.0
    late = judge(measured(plan=quick, delays=seen_after(None)))
    assert (late.stale_s, late.refused) == (None, "")
    assert any(remark.level == "problem" and "--quick" in remark.remedy for remark in late.remarks)


def test_where_time_stamps_alone_tell_of_changes_nothing_is_lowered() -> None:
    old = measured(follower=side("beta")._replace(kind="nfs"))
    assert judge(old).stale_s == 30.0
    assert any("vers=4.2" in remark.remedy for remark in judge(old).remarks)
    assert judge(old._replace(delays=seen_after(40.0))).stale_s == 62.0


@pytest.mark.parametrize("kind", ["missed", "touched"])
def test_what_nothing_rests_on_is_told_and_refuses_nothing(kind: str) -> None:
    verdict = judge(measured(delays=seen_after(None, kind)))
    assert verdict.refused == ""
    assert any(remark.level == "note" and "nothing here rests on it" in remark.text for remark in verdict.remarks)


def test_locks_appends_and_clocks_are_told_in_words() -> None:
    verdict = judge(
        measured(locks={"flock": "does not exclude the other node", "fcntl": EXCLUDES}, appended=(180, 200),
                 clock=Offset(-3600.0, 0.2))
    )  # fmt: skip
    notes = {remark.subject: remark.text for remark in verdict.remarks if remark.level == "note"}
    assert notes.keys() == {"locks", "append", "clocks"}
    assert "20 of 200" in notes["append"]
    assert "3600 s" in notes["clocks"]
    assert not verdict.refused


# ---- what is recorded


def prescribed(store: Path, late_s: float, **more: bool) -> tuple[float, str]:
    found = measured(delays=seen_after(late_s))
    given = prescription.prescribe(str(store), found, judge(found), **more)
    prescription.write(str(store), given.changes)
    return given.changes["stale_s"], " ".join(remark.text for remark in given.remarks)


def test_the_worst_that_was_ever_recorded_stays_unless_it_is_reset(store: Path) -> None:
    assert prescribed(store, 20.0)[0] == 32.0
    stays, told = prescribed(store, 0.01)
    assert stays == 32.0
    assert "3 s would do" in told
    assert prescribed(store, 40.0)[0] == 62.0
    assert Store(store).info.lease_s == 248.0
    assert prescribed(store, 0.01, reset=True)[0] == 3.0
    assert Store(store).info.lease_s == 120.0


def test_nothing_is_lowered_while_somebody_holds_a_run(store: Path) -> None:
    prescribed(store, 40.0)
    attempt = attempt_at(Store(store), {"lr": 0.1})
    stays, told = prescribed(store, 0.01, reset=True)
    assert stays == 62.0
    assert "stays 62 s: workers that go by it hold runs" in told
    raised, told = prescribed(store, 60.0)
    assert raised == 92.0
    assert "still go by 62 s" in told
    attempt.claim.release()
    assert prescribed(store, 0.01, reset=True)[0] == 3.0


def test_a_record_survives_other_edits(store: Path) -> None:
    prescribed(store, 20.0)
    Store(store).edit(manager="X")
    info = store_file.read(Disk(store))
    assert info is not None
    assert info.doctor is not None
    assert info.doctor["seen_after_s"] == {"listed": 20.0, "replaced": 0.01}


# ---- the command, on mounts that are two


@pytest.fixture
def start() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def begin(*words: str) -> subprocess.Popen[str]:
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", QUIET, "doctor", "--peer", *words], env=environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.communicate()


def test_ctrl_c_leaves_nothing(store: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    process = start(str(store))
    assert process.stderr is not None
    while "left" not in process.stderr.readline():  # then it waits in the meeting
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    assert process.wait(120) == 130
    assert not (store / ".doctor").exists()


@pytest.fixture
def two_mounts(tmp_path: Path) -> Iterator[Path]:
    script = lab("sshfs.sh")
    begun = subprocess.run([script, "start", tmp_path], text=True, capture_output=True)
    if begun.returncode:
        pytest.skip(f"sshfs cannot be mounted here: {begun.stderr.strip()[-200:]}")
    yield tmp_path
    subprocess.run([script, "stop", tmp_path], check=True)


def on_two_mounts(start: Callable[..., subprocess.Popen[str]], mounts: Path, *words: str) -> tuple[Store, list[str]]:
    _ = Store(mounts / "A/store").info
    started = [start(*words, str(mounts / side / "store")) for side in "AB"]
    told = []
    for process in started:
        out, err = process.communicate(timeout=500)
        assert process.returncode == 0, err
        told.append(out)
    return Store(mounts / "srv/store"), told


def test_on_sshfs_claims_are_safe_and_listings_twenty_seconds_old(
    two_mounts: Path, start: Callable[..., subprocess.Popen[str]]
) -> None:
    store, told = on_two_mounts(start, two_mounts, "--quick")
    assert told[0] == told[1]
    assert "fuse.sshfs" in told[0]
    assert "safe: 40 of 40 races had one winner" in told[0]
    assert "flock does not exclude the other node" in told[0]
    assert store.info.stale_s is not None
    assert store.info.stale_s >= 30
    assert [path.name for path in (two_mounts / "srv/store").iterdir() if "lock" not in path.name] == ["store.yaml"]


@pytest.mark.nightly
def test_a_long_look_at_sshfs_finds_the_same(two_mounts: Path, start: Callable[..., subprocess.Popen[str]]) -> None:
    store, told = on_two_mounts(start, two_mounts)
    assert "safe: 200 of 200 races had one winner" in told[0]
    assert store.info.doctor is not None
    assert store.info.doctor["seen_after_s"]["listed"] > 5
    assert store.info.stale_s is not None
    assert 20 <= store.info.stale_s <= 60


_ONE_TICK = """
import os, sys, time
server, client, cases, old = "/mnt/export", sys.argv[1], 0, []
for number in range(300):
    here, there = f"{server}/{number}", f"{client}/{number}"
    os.mkdir(here)
    os.listdir(there)
    time.sleep(0.05)
    open(f"{here}/first", "w").close()
    stamp = os.stat(here).st_mtime_ns
    between = os.listdir(there)
    open(f"{here}/second", "w").close()
    if between == ["first"] and os.stat(here).st_mtime_ns == stamp:
        cases += 1
        time.sleep(1)
        old.append("second" not in os.listdir(there))
    if cases == 5:
        break
print("old" if all(old) else "fresh" if not any(old) else old)
"""


@pytest.mark.nightly
@pytest.mark.parametrize(("version", "listing"), [("4.2", "fresh"), ("3,nolock", "old")])
def test_nfs_3_alone_misses_the_second_change_in_one_tick(version: str, listing: str, tmp_path: Path) -> None:
    """What the note on time stamps, and the bound under which they are never trusted, rest on."""
    (tmp_path / "tick.py").write_text(_ONE_TICK)
    command = f"onB {sys.executable} {tmp_path}/tick.py $B"
    run = subprocess.run([lab("nfs.sh"), "run", command, "--vers", version], text=True, capture_output=True)
    assert run.stdout == f"{listing}\n", run.stderr


@pytest.mark.nightly
@pytest.mark.parametrize(
    ("version", "locks", "stale_s"),
    [("4.2", "refused to the other", range(2, 20)), ("3,nolock", "flock does not exclude the other node", [30])],
)
def test_between_two_nfs_clients_claims_are_safe(version: str, locks: str, stale_s: Collection[int]) -> None:
    jimmy = f"{sys.executable} -P -m jimmy_manager.cli"
    script = f"""
        export PYTHONPATH={ROOT}
        onA {jimmy} init $A/store || exit 1
        onA {jimmy} doctor --peer $A/store >/run/a.out 2>/run/a.err & first=$!
        onB {jimmy} doctor --peer $B/store || exit 2
        wait $first || {{ cat /run/a.err; exit 3; }}
        cat $A/store/store.yaml; ls -A $A/store
    """
    run = subprocess.run(
        [lab("nfs.sh"), "run", script, "--vers", version, "--timeout", "600"], text=True, capture_output=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "safe: 200 of 200 races had one winner" in run.stdout
    assert locks in run.stdout
    assert "refused:" not in run.stdout
    assert int(float(run.stdout.partition("\nstale_s: ")[2].split()[0])) in stale_s
    assert ".doctor" not in run.stdout
