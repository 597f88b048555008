"""Workers on a disk whose power fails: the program that the lab's machine runs until then.

It prints the line POWERLOSS, upon which the machine is cut off, at a random moment after the first commits were
acknowledged. Its workers go on meanwhile; their journals lie outside, and each line is there before the worker goes on.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tests.stress.herd import warm_up, work
from tests.stress.plan import Plan
from tests.stress.witness import read_journals

_LONGEST_S = 4.0


def main() -> None:
    plan = Plan(**json.loads(sys.argv[1]))
    plan.journals.mkdir(parents=True)
    warm_up(Path(plan.folder))
    for number in range(plan.workers):
        if os.fork() == 0:
            os._exit(work(plan, number, number))
    while sum(line.event == "acknowledged" for line in read_journals(plan.journals)) < plan.workers:
        time.sleep(0.05)
    time.sleep(random.Random(plan.seed).uniform(0.0, _LONGEST_S))
    print("POWERLOSS", flush=True)
    while True:
        signal.pause()


if __name__ == "__main__":
    main()
