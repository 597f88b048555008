"""The three "Quick Usage" parts of the older description as one program: dataset, model, experiment.

Filled in: the layers, which are dots there, and ``**kwargs`` of the model, to which the third part gives an optimizer.
The ``set_name`` that it gives to a dataset without sets is passed over with a warning.
"""
# ruff: noqa: F403, F405, N802

from jimmy_manager.datasets import *
from jimmy_manager.models import *
from jimmy_manager.training import DynamicConfig, JimmyExperiment, JimmyLRScheduler


class MyDataset(JimmyDataset):
    def __init__(self, batch_size: int, shuffle: bool = False):
        super().__init__(batch_size, drop_last=False, shuffle=shuffle)
        self.data = torch.randn(1000, 128).to(DEVICE)
        self.labels = torch.randint(0, 10, (1000,)).to(DEVICE)
        self.n_samples = len(self.data)

    def __getitem__(self, idx):
        start = (idx - 1) * self.batch_size
        end = min(start + self.batch_size, self.n_samples)
        indices = self._indices[start:end]
        return {"data": self.data[indices], "target": self.labels[indices]}


class MyModel(JimmyModel):
    def __init__(self, **kwargs):
        super().__init__(
            **{
                "optimizer_cls": torch.optim.AdamW,
                "optimizer_args": {"lr": 1e-4, "weight_decay": 0.01},
                "mixed_precision": True,
                "compile_model": False,
                "clip_grad": 1.0,
                **kwargs,
            }
        )
        self.train_loss_names = ["Train/Loss", "Train/Acc"]
        self.eval_loss_names = ["Eval/Loss", "Eval/Acc"]
        self.encoder = nn.Sequential(nn.Linear(128, 64), nn.ReLU())
        self.decoder = nn.Sequential(nn.Linear(64, 10))
        self.loss_fn = nn.CrossEntropyLoss()

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def trainStep(self, data_dict):
        with getAutoCast(data_dict["data"], self.mixed_precision):
            output = self(data_dict["data"])
            loss = self.loss_fn(output, data_dict["target"])
            acc = (output.argmax(dim=-1) == data_dict["target"]).float().mean()
        self.backwardOptimize(loss)
        return {"Train/Loss": loss.item(), "Train/Acc": acc.item()}, {"output": output.detach()}

    def evalStep(self, data_dict):
        with torch.no_grad():
            output = self(data_dict["data"])
            loss = self.loss_fn(output, data_dict["target"]).item()
            acc = (output.argmax(dim=-1) == data_dict["target"]).float().mean().item()
        return {"Eval/Loss": loss, "Eval/Acc": acc}, {"output": output.detach()}


# The dataset alone
train_set = MyDataset(batch_size=32, shuffle=True)
for batch_dict in train_set:
    data = batch_dict["data"]
    target = batch_dict["target"]

# The model alone
model = MyModel().to(DEVICE)
model.initialize()

# The experiment
exp = JimmyExperiment(comments="Baseline experiment with AdamW")
exp.dataset_cfg = DynamicConfig(MyDataset, batch_size=64, shuffle=True)
exp.model_cfg = DynamicConfig(
    MyModel, optimizer_cls=torch.optim.AdamW, optimizer_args={"lr": 1e-4}, mixed_precision=True
)
exp.lr_scheduler_cfg = DynamicConfig(
    JimmyLRScheduler, peak_lr=2e-4, min_lr=1e-7, warmup_count=10, patience=10, decay_rate=0.5
)
exp.constants = {
    "n_epochs": 100,
    "moving_avg": 100,
    "eval_interval": 5,
    "early_stop_lr": 1e-6,
    "save_dir": None,
    "log_dir": None,
}
trainer = exp.start(checkpoint=None)

exp.dataset_cfg.set_name = "test"
test_set = exp.dataset_cfg.build()
test_report = exp.test(trainer.model, test_set)
test_report.to_csv("test_results.csv")
