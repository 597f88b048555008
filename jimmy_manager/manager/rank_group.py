"""The process group in which the hooks of several ranks exchange tensors: made, left when they lost step, made anew."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import time
from datetime import timedelta
from typing import Any

from jimmy_manager.manager.rank_line import Place

log = logging.getLogger(__name__)

_RENEW_S = 120.0


class Group:
    """Torch's default process group of this rank: gloo for the CPU, nccl for GPUs, or the one that the job has made."""

    def __init__(self, place: Place, meeting: str, store: Any, device: str) -> None:
        import torch
        import torch.distributed as dist

        self._place, self._meeting, self._store = place, meeting, store
        self._backend = "nccl" if device.startswith("cuda") else "gloo"
        if self._backend == "nccl":
            index = torch.device(device).index
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")) if index is None else index)
        if dist.is_initialized():
            self._backend = dist.get_backend()
        else:
            # Before there is a group: its functions take for their default the one of the moment of this import, which
            # others do later on, and then it could never be closed.
            import torch.distributed.nn.functional

            self.renew(0)
            # A thread of gloo's may drop the last finished exchange while the interpreter already ends, which aborts
            # the process now and then; and nccl complains of whoever does not leave.
            atexit.register(time.sleep, 0.2) if self._backend == "gloo" else atexit.register(self.leave)

    def renew(self, number: int) -> None:
        """Join the group ``number`` of this job; all ranks do that at the same point."""
        import torch.distributed as dist
        from torch.distributed.distributed_c10d import PrefixStore

        self.leave()
        store = PrefixStore(f"jimmy/{self._meeting}/{number}", self._store)
        # The patience is for joining; exchanges have torch's own.
        store.set_timeout(timedelta(seconds=_RENEW_S))
        dist.init_process_group(self._backend, store=store, rank=self._place.rank, world_size=self._place.size)

    def leave(self) -> None:
        """Close the group, which ends the exchanges in which gloo still waits at other ranks."""
        import torch.distributed as dist

        if dist.is_initialized():
            # What hangs together with a rank that is gone cannot be closed in good order.
            with contextlib.suppress(Exception):
                dist.destroy_process_group()

    def abort(self) -> None:
        """Throw the main thread out of an exchange of nccl's; one of gloo's ends once another rank leaves."""
        from torch.distributed import distributed_c10d

        try:
            distributed_c10d._abort_process_group()
        except Exception as error:  # noqa: BLE001  # torch's own; whoever hangs all the same is ended by force
            log.debug("the process group cannot be aborted: %s", error)
