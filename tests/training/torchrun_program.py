"""A training for one process or several; each writes what it ended with.

python torchrun_program.py FOLDER [--stop-at STEP] [--resume] [--bad-step STEP]
"""

import argparse
import hashlib
import json
import os
from pathlib import Path

import torch
from torch import nn

from jimmy_manager.datasets import DictDataset
from jimmy_manager.errors import Stopped
from jimmy_manager.models import JimmyModel
from jimmy_manager.training.jimmy_trainer import JimmyTrainer


class Net(JimmyModel):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.train_loss_names = ["Train/Main", "Train/Mean"]
        self.net = nn.Sequential(nn.Linear(5, 16), nn.Tanh(), nn.Linear(16, 3))
        self.bad_step, self.steps = -1, 0

    def forward(self, x):
        return self.net(x)

    def trainStep(self, data_dict):
        self.steps += 1
        data = data_dict["data"]
        if self.steps == self.bad_step and RANK == 0:
            data = data * float("nan")
        output = self(data)
        loss = self.criterion(output, data_dict["target"])
        self.backwardOptimize(loss)
        return {"Train/Main": loss.detach(), "Train/Mean": data.mean()}, {}


RANK = int(os.environ.get("RANK", "0"))
IS_LAST = int(os.environ.get("WORLD_SIZE", "1")) - 1 == RANK


class StopAt:
    """Only the last process is told to stop, as where a signal reached one of them."""

    def __init__(self, step):
        self.step, self.trainer, self.reason = step, None, "SIGTEST" if IS_LAST else ""

    def __bool__(self):
        is_last = int(os.environ.get("WORLD_SIZE", "1")) - 1 == RANK
        return is_last and self.trainer.loop.step >= self.step

    def installed(self):
        from contextlib import nullcontext

        return nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--stop-at", type=int, default=10**9)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--bad-step", type=int, default=-1)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(100 + RANK)  # the first process decides
    draw = torch.Generator().manual_seed(1)
    x = torch.randn(57, 5, generator=draw, dtype=torch.float64)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    # 7 batches of 8 and one of a single sample, which three processes cannot share.
    train_set = DictDataset({"data": x, "target": y}, 8, shuffle=True)
    train_set.manual_seed(200 + RANK)
    model = Net(optimizer_args={"lr": 0.01}, clip_grad=0.5, ema_decay=0.9, accumulate=2).double()
    model.bad_step = arguments.bad_step
    model.initialize()
    stop = StopAt(arguments.stop_at)
    trainer = stop.trainer = JimmyTrainer(
        train_set, DictDataset({"data": x[:30], "target": y[:30]}, 8), model,
        torch.optim.lr_scheduler.ReduceLROnPlateau(model.optimizer, factor=0.5, patience=0),
        log_dir=arguments.folder / "log", save_dir=arguments.folder, n_epochs=9, moving_avg=10,
        show_progress=False, stop=stop, on_nan="skip",
    )  # fmt: skip
    if trainer.group is not None:
        trainer.read_within_s = 0.0  # after each step, so that it is known where they stop
    if arguments.resume:
        trainer.resume()
    ended = "done"
    try:
        trainer.start()
    except Stopped as stopped:
        ended = str(stopped)
    weights = torch.cat([each.detach().reshape(-1) for each in model.parameters()])
    report = {
        "ended": ended,
        "step": trainer.loop.step,
        "weights": weights.tolist(),
        "sha": hashlib.sha256(weights.numpy().tobytes()).hexdigest(),
        "eval": trainer.eval_losses,
        "train": trainer.averages.epoch(),
        "moving": trainer.averages.moving(),
        "lr": model.lr,
        "ema": [value.sum().item() for value in model.ema.state_dict().values()],
    }
    (arguments.folder / f"report-{RANK}.json").write_text(json.dumps(report))
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
