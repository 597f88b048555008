"""The older quick start: a dataset, a model and an experiment, complete; only the lines that import are new."""
# ruff: noqa: F403, F405, N802

# 1. Dataset
from jimmy_manager.datasets import *


class MyData(JimmyDataset):
    def __init__(self, batch_size):
        super().__init__(batch_size)
        self.X = torch.randn(1000, 10).to(DEVICE)
        self.y = torch.randint(0, 2, (1000,)).to(DEVICE)
        self.n_samples = 1000

    def __getitem__(self, idx):
        start, end = (idx - 1) * self.batch_size, idx * self.batch_size
        return {"data": self.X[start:end], "target": self.y[start:end]}


# 2. Model
import torch.nn as nn  # noqa: E402

from jimmy_manager.models import JimmyModel  # noqa: E402


class MyModel(JimmyModel):
    def __init__(self):
        super().__init__(optimizer_cls=torch.optim.Adam, optimizer_args={"lr": 1e-3})
        self.train_loss_names = ["Train/Loss"]
        self.eval_loss_names = ["Eval/Loss"]
        self.net = nn.Linear(10, 2)
        self.loss_fn = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.net(x)

    def trainStep(self, d):
        out = self(d["data"])
        loss = self.loss_fn(out, d["target"])
        self.backwardOptimize(loss)
        return {"Train/Loss": loss.item()}, {"output": out.detach()}

    def evalStep(self, d):
        with torch.no_grad():
            out = self(d["data"])
            loss = self.loss_fn(out, d["target"])
        return {"Eval/Loss": loss.item()}, {"output": out}


# 3. Experiment
from jimmy_manager.training import DynamicConfig, JimmyExperiment  # noqa: E402

exp = JimmyExperiment("Quick start test")
exp.dataset_cfg = DynamicConfig(MyData, batch_size=32)
exp.model_cfg = DynamicConfig(MyModel)
exp.constants = {"n_epochs": 10, "moving_avg": 10, "eval_interval": 2}
trainer = exp.start()
