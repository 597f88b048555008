"""The flag that asks to stop: raised by signals, by time, or by a call."""

from __future__ import annotations

import math
import os
import signal
import threading

import pytest

from jimmy_manager.errors import ConfigError
from jimmy_manager.signals import STOPPING, TIME_LIMIT, StopFlag, stop_signals


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def send(number: int) -> None:
    os.kill(os.getpid(), number)


def test_the_flag_rises_by_itself_at_its_moment_and_stays_up() -> None:
    clock = Clock()
    flag = StopFlag(monotonic=clock)
    flag.end_at(105.0)
    assert (bool(flag), flag.reason) == (False, "")
    clock.now = 105.0
    assert (bool(flag), flag.reason) == (True, TIME_LIMIT)
    flag.end_at(math.inf)
    assert (bool(flag), flag.was_signalled) == (True, False)


def test_the_first_reason_is_kept_and_a_later_signal_is_known() -> None:
    flag = StopFlag(monotonic=lambda: 0.0)
    with flag.installed():
        flag.end_at(0.0)
        assert flag
        send(signal.SIGTERM)
        assert (flag.reason, flag.was_signalled) == (TIME_LIMIT, True)
    with flag.installed():  # the moment is still over
        assert (flag.reason, flag.was_signalled, bool(flag)) == ("", False, True)


def test_only_the_chosen_signals_are_caught() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    flag = StopFlag(stop_signals(["USR2"]))
    with flag.installed():
        assert signal.getsignal(signal.SIGUSR1) is before
        send(signal.SIGUSR2)
        assert (flag.reason, flag.was_signalled) == ("SIGUSR2", True)
    assert signal.getsignal(signal.SIGUSR2) is not flag._catch


def test_a_signal_from_before_the_block_counts_where_an_outer_flag_caught_it() -> None:
    early, flag = StopFlag([signal.SIGUSR2]), StopFlag()
    with early.installed():
        send(signal.SIGUSR2)
        with flag.installed():
            assert flag.reason == "SIGUSR2"
    with flag.installed():
        assert flag.reason == ""


def test_a_signal_reaches_the_outer_flag_from_within_the_inner_block() -> None:
    early, flag = StopFlag([signal.SIGUSR2]), StopFlag()
    with early.installed(), flag.installed():
        send(signal.SIGUSR2)
        assert (flag.reason, early.reason) == ("SIGUSR2", "SIGUSR2")


def test_a_set_from_another_thread_is_seen() -> None:
    flag = StopFlag()
    with flag.installed():
        thread = threading.Thread(target=flag.set, args=("jimmy stop",))
        thread.start()
        thread.join()
        assert (bool(flag), flag.reason, flag.was_signalled) == (True, "jimmy stop", False)


def test_signals_are_named_with_or_without_sig_and_once_each() -> None:
    assert stop_signals(STOPPING) == STOPPING
    assert stop_signals([" usr1", "SIGUSR1", 10]) == (signal.SIGUSR1,)


@pytest.mark.parametrize("name", ["", "USR3", "KILL", "SIGSTOP", 0, 9, -1, 1000])
def test_what_is_no_signal_or_cannot_be_caught_is_refused(name: str | int) -> None:
    with pytest.raises(ConfigError, match=r"stop signals are e\.g\. SIGTERM"):
        stop_signals(["TERM", name])
