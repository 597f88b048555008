"""Several processes that the doctor lets race on one host: ``python -m jimmy_manager.cluster.racer FOLDER ME ROUNDS``.

Each says ``ready``, reads a moment of ``time.monotonic`` for each kind of race, and answers with its tries as JSON.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from contextlib import ExitStack

from jimmy_manager.cluster import races
from jimmy_manager.cluster.place import Place
from jimmy_manager.cluster.races import Tally, Try

PROCESSES, ROUNDS = 3, 50
_SLOT_S = 0.005
KINDS = ("link", "open")


def race(place: Place, processes: int = PROCESSES, rounds: int = ROUNDS) -> list[Tally]:
    """Race ``processes`` of them in ``place``, which is made, and count who won."""
    names = [f"racer{number}" for number in range(processes)]
    races.prepare(place, "link", names, rounds)
    with ExitStack() as stack:
        started = []
        for name in names:
            command = [sys.executable, "-P", "-m", __name__, place.root, name, str(rounds)]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            stack.callback(process.kill)
            started.append(stack.enter_context(process))
        for process in started:
            _line_of(process)
        found = []
        for kind in KINDS:
            begin = time.monotonic() + 0.1
            for process in started:
                _tell(process, f"{begin!r}\n")
            answers = [[Try(*each) for each in json.loads(_line_of(process))] for process in started]
            found.append(races.tally(kind, [[answer] for answer in answers]))
        return found


def _line_of(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout else ""
    if not line:
        raise ChildProcessError(f"a process that was to race ended with status {process.wait()}")
    return line


def _tell(process: subprocess.Popen[str], line: str) -> None:
    if process.stdin:
        process.stdin.write(line)
        process.stdin.flush()


def _run(folder: str, me: str, rounds: int) -> None:
    place = Place(folder)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for kind in KINDS:
        begin = float(sys.stdin.readline())
        (tries,) = races.run(place, kind, [me], rounds, begin, _SLOT_S)
        sys.stdout.write(json.dumps(tries) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _run(sys.argv[1], sys.argv[2], int(sys.argv[3]))
