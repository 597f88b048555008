"""The newer description's dataset and model, and its pipeline: an entry script with ``train()`` and ``test()``.

Filled in: the file of data, of which the dataset's tensors A and B are what the model calls ``data`` and ``target``;
the layers and the figure, which are dots there; ``rmse_func`` and ``loss``, which are used there but never set; and
what the declared accuracy and F1 of a regression may mean: of the target's sign.
"""
# ruff: noqa: F403, F405, N802, N806

from pathlib import Path

from matplotlib import pyplot as plt

from jimmy_manager.datasets import *
from jimmy_manager.models import *
from jimmy_manager.training import DynamicConfig, JimmyExperiment


class MyDataset(JimmyDataset):
    def __init__(
        self,
        set_name: Literal["train", "eval", "test", "debug", "all"],
        batch_size: int,
        drop_last: bool = False,
        shuffle: bool = False,
        noise: float = 0.0,
    ):
        super().__init__(set_name, batch_size, drop_last, shuffle)
        slices = {
            "train": slice(0, -300),
            "eval": slice(-300, -200),
            "test": slice(-200, None),
            "debug": slice(0, 100),
            "all": slice(0, None),
        }
        slicing = slices[set_name]
        dataset = torch.load("data.pth")
        self.data_A = dataset["data_A"].to(DEVICE)[slicing]
        self.data_B = dataset["data_B"].to(DEVICE)[slicing]
        self.noise = noise
        self.n_samples = len(self.data_A)

    def __getitem__(self, idx):
        start = idx * self.batch_size
        end = min(start + self.batch_size, self.n_samples)
        indices = self._indices[start:end]
        batch_data_A = self.data_A[indices]
        batch_data_B = self.data_B[indices]
        if self.set_name == "train":
            batch_data_A = batch_data_A + self.noise * torch.randn_like(batch_data_A)
        return {"data": batch_data_A, "target": batch_data_B}


class MyModel(JimmyModel):
    def __init__(self, width: int, **jimmy_model_kwargs):
        super().__init__(**jimmy_model_kwargs)
        self.train_loss_names = ["Train/Main", "Train/MAE", "Train/RMSE"]
        self.eval_loss_names = ["Eval/Main", "Eval/MAE", "Eval/RMSE", "Eval/Acc", "Eval/F1"]
        self.encoder = nn.Sequential(nn.Linear(8, width), nn.Tanh())
        self.decoder = nn.Sequential(nn.Linear(width, 1))
        self.mse_func = nn.MSELoss()
        self.mae_func = nn.L1Loss()
        self.rmse_func = RMSE()

    def forward(self, x):
        return self.decoder(self.encoder(x))

    def trainStep(self, data_dict):
        with getAutoCast(data_dict["data"], self.mixed_precision):
            output = self(data_dict["data"])
            mse_loss = self.mse_func(output, data_dict["target"])
            mae_loss = self.mae_func(output, data_dict["target"])
            rmse_loss = self.rmse_func(output, data_dict["target"])
        self.backwardOptimize(mse_loss)
        return {"Train/Main": mse_loss.item(), "Train/MAE": mae_loss.item(), "Train/RMSE": rmse_loss.item()}, {
            "output": output.detach()
        }

    def testStep(self, data_dict):
        with torch.no_grad():
            output = self(data_dict["data"])
            target = data_dict["target"]
            loss = self.mse_func(output, target).item()
            mae = nn.L1Loss()(output, target).item()
            rmse = self.rmse_func(output, target).item()
            hits = ((output > 0) & (target > 0)).sum().item()
            positives = ((output > 0).sum() + (target > 0).sum()).item()
            acc = ((output > 0) == (target > 0)).float().mean().item()
        f1 = 2 * hits / positives if positives else 1.0
        return {"Eval/Main": loss, "Eval/MAE": mae, "Eval/RMSE": rmse, "Eval/Acc": acc, "Eval/F1": f1}, {
            "output": output.detach()
        }

    def evalStep(self, data_dict):
        test_returns = self.testStep(data_dict)
        fig, ax = plt.subplots()
        ax.scatter(data_dict["target"].cpu(), test_returns[1]["output"].cpu())
        test_returns[1]["fig"] = fig
        return test_returns


class Experiment(JimmyExperiment):
    """What all runs of this project have in common."""

    def __init__(self, comments, dir_name=None):
        super().__init__(comments, dir_name)
        self.dataset_cfg = DynamicConfig(MyDataset, batch_size=64, drop_last=True, shuffle=True, noise=0.01)
        self.model_cfg = DynamicConfig(
            MyModel, width=16, optimizer_cls=torch.optim.AdamW, optimizer_args={"lr": 1e-2}, clip_grad=1.0
        )
        self.lr_scheduler_cfg = DynamicConfig(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=10)
        self.constants = {"n_epochs": 10, "moving_avg": 20, "eval_interval": 5}


def prepare():
    data = torch.randn(1300, 8)
    torch.save({"data_A": data, "data_B": (data[:, :1] - data[:, 1:2]).sin()}, "data.pth")


def train():
    experiment = Experiment("Sine of a difference", dir_name="wide")
    experiment.model_cfg.width = 32
    experiment.start(checkpoint=None)


def test():
    experiment = Experiment("Sine of a difference, judged")
    experiment.model_cfg.width = 32
    run = Path("Runs", "MyDataset", "MyModel", "wide")
    model = experiment.model_cfg.build().to(DEVICE)
    model.initialize()
    model.loadFrom(run / "best.pth")
    experiment.dataset_cfg.set_name = "test"
    test_report = experiment.test(model, experiment.dataset_cfg.build())
    test_report.to_csv(run / "test_results.csv")


if __name__ == "__main__":
    prepare()
    train()
    test()
