"""The sweep that tasks of an array work on: the Witness of the stress tests, on nodes told apart as hosts are.

All nodes of the lab share one kernel; here each has a boot id of its own, so that nobody can prove the death of a
worker on another node by looking at processes, as on any real cluster.
"""

from __future__ import annotations

import json
import os
import time
from typing import Any

from jimmy_manager.archives import owner
from jimmy_manager.archives.attempt import Attempt
from tests.cluster.sweep import PLAN, hold_of, mark_of
from tests.stress import twins
from tests.stress.plan import Plan
from tests.stress.witness import Witness, configurations

_boot_id = owner._boot_id


class Job(Witness):
    """Works on the configurations of the plan in ``$WITNESS_PLAN``, and leaves a mark once it trains."""

    name = "Witness"

    def __init__(self, store: str, **options: Any) -> None:
        if node := os.environ.get("SLURMD_NODENAME"):
            owner._boot_id = lambda: f"{_boot_id()} {node}"
        plan = Plan(**json.loads(os.environ[PLAN]))
        options |= {"max_crashes": 10**9, "lease_s": plan.lease_s, "heartbeat_s": plan.lease_s / 10}
        options.pop("verbose", None)
        super().__init__(store, plan.journals, pause=plan.pause, finished=plan.finished, **options)
        self.num_epochs = plan.epochs
        self.choices = [config.asdict() for config in configurations(plan.configs)]
        self._mark = mark_of(plan, int(os.environ["SLURM_JOB_ID"]), int(os.environ.get("SLURM_RESTART_COUNT", "0")))
        self._hold, self._held = (hold_of(plan, os.getpid(), state) for state in ("asked", "held"))
        _break(self, plan.twin)

    def train(self) -> None:
        if not self._mark.exists():
            scratch = self._mark.with_suffix(".scratch")
            scratch.write_text(str(os.getpid()))
            scratch.rename(self._mark)
        if self._hold.exists():
            self._hold.rename(self._held)
            while self._held.exists():
                time.sleep(0.05)
        super().train()


def _break(job: Job, twin: str) -> None:
    """Break on purpose what the tests then have to notice."""
    if twin == "never resume":
        Attempt.adopt = Attempt.start_afresh  # type: ignore[method-assign,assignment]
    else:
        twins.apply(twin, job)
