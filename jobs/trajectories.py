"""Recover where cars have driven from one noisy GPS point a minute: a Transformer that learns the streets on the way.

python jobs/trajectories.py sweep --workers 2 --store store/trajectories
python jobs/trajectories_report.py store/trajectories PICTURE.png

Of each track only every 12th point, a minute apart, is given, as measured; asked for is where the car really was every
5 seconds between them. Straight lines are the baseline: what the model adds to them is its only output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jimmy_manager import TrainedManager
from jimmy_manager.datasets import geometricDistance, interpTraj, lengthsToMask
from jimmy_manager.models import MHSA, FCLayers, JimmyModel, MaskedLoss, PosEncoderRotary, ResWrapper, Tensor, nn, torch

if __package__:  # as jobs.trajectories, or else from its own folder
    from .gps_tracks import GpsTracks, to_degrees
else:
    from gps_tracks import GpsTracks, to_degrees


class TrajectoryManager(TrainedManager):
    """Train the configurations of ``trajectories.yaml``; ``metres_eval`` chooses, ``metres_test`` only reports."""

    num_epochs = 12
    splits = ("train", "eval", "test")
    default_config = "trajectories_defaults.yaml"
    choices = "trajectories.yaml"
    main_metric = "metres_eval"


class Tracks(GpsTracks):
    """`GpsTracks`, of which ``n_train`` tracks are to learn from and a fifth as many in each other set."""

    def __init__(self, set_name: str, batch_size: int, *args: Any, n_train: int = 12_000, **kwargs: Any) -> None:
        n_tracks = n_train if set_name == "train" else n_train // 5
        super().__init__(set_name, batch_size, *args, n_tracks=n_tracks, **kwargs)


class TrackRecovery(JimmyModel):
    """Predict what lies between points that are ``every`` steps apart, (B, M + 1, 2) -> (B, M * every, 2).

    Each of the M gaps is a token that knows both its ends in absolute coordinates, as waves of several lengths down to
    a city block, and attends to the other gaps of its track. The loss is the mean absolute error, which, unlike the
    squared one, rather follows one of two possible streets than the middle between them.
    """

    def __init__(
        self, every: int = 12, width: int = 128, layers: int = 2, heads: int = 4, waves: int = 7, **training: Any
    ) -> None:
        super().__init__(**training)
        self.every = every
        self.train_loss_names = ["Train/Main"]
        self.eval_loss_names = ["Eval/Main", "Eval/Metres", "Eval/Straight"]
        self.criterion = MaskedLoss(nn.L1Loss)
        self.register_buffer("waves", torch.pi * 2.0 ** torch.arange(waves), persistent=False)
        self.embed = FCLayers([8 * waves + 2, width, width], act=nn.GELU())
        rotary = PosEncoderRotary(width // heads)
        self.blocks = nn.ModuleList(Block(width, heads, rotary) for _ in range(layers))
        self.head = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * every))
        nn.init.zeros_(self.head[1].weight)  # to begin with straight lines
        nn.init.zeros_(self.head[1].bias)

    def forward(self, given: Tensor, mask: Tensor) -> Tensor:
        """Return the places between the points ``given`` (B, M + 1, 2); ``mask`` (B, M) is True for real gaps."""
        start, end = given[:, :-1], given[:, 1:]  # (B, M, 2)
        x = self.embed(torch.cat([self.as_waves(start), self.as_waves(end), end - start], -1))  # (B, M, width)
        for block in self.blocks:
            x = block(x, mask)
        return self.straight(given) + self.head(x).unflatten(-1, (self.every, 2)).flatten(1, 2) / 10

    def as_waves(self, places: Tensor) -> Tensor:
        """Encode places (..., 2) as sines and cosines (..., 4 * waves)."""
        angles = (places[..., None] * self.waves).flatten(-2)
        return torch.cat([angles.sin(), angles.cos()], -1)

    def straight(self, given: Tensor) -> Tensor:
        """Return the places on straight lines through the points ``given`` (B, M + 1, 2)."""
        return interpTraj(given, (given.shape[1] - 1) * self.every + 1)[:, :-1]

    def task(self, data_dict: Mapping[str, Tensor], first: int = 0) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return the points given, from point ``first`` on, the places asked for, and the masks of gaps and places."""
        traj, clean, lengths = data_dict["traj"][:, first:], data_dict["clean"][:, first:], data_dict["lengths"] - first
        given = traj[:, :: self.every]
        count = given.shape[1] - 1
        gaps = lengthsToMask((lengths - 1) // self.every, count)  # what is behind the last point given is not asked for
        return given, clean[:, : count * self.every], gaps, gaps.repeat_interleave(self.every, 1)

    def trainStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        # Another point to begin with each time: as good as twelve times the data.
        given, places, gaps, mask = self.task(data_dict, first=int(torch.randint(self.every, ())))
        loss = self.criterion(self(given, gaps), places, mask)
        self.backwardOptimize(loss)
        return {"Train/Main": loss.detach()}, {}

    @torch.no_grad()
    def evalStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        given, places, gaps, mask = self.task(data_dict)
        found = self(given, gaps)
        losses = {
            "Eval/Main": self.criterion(found, places, mask),
            "Eval/Metres": mean_error(found, places, mask).mean(),
            "Eval/Straight": mean_error(self.straight(given), places, mask).mean(),
        }
        return losses, {"found": found}


class Block(nn.Module):
    """One layer of a Transformer, normalised before each part (Xiong et al. 2020)."""

    def __init__(self, width: int, heads: int, rotary: nn.Module) -> None:
        super().__init__()
        self.norm, self.attend = nn.LayerNorm(width), MHSA(width, heads, rotary=rotary)
        self.think = ResWrapper(nn.Sequential(nn.LayerNorm(width), FCLayers([width, 2 * width, width], act=nn.GELU())))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.think(x + self.attend(self.norm(x), key_padding_mask=mask))


def errors(found: Tensor, places: Tensor) -> Tensor:
    """Return how many metres each place found is away from the true one, (B, L, 2) -> (B, L)."""
    return geometricDistance(to_degrees(found), to_degrees(places), reduction="none")


def mean_error(found: Tensor, places: Tensor, mask: Tensor) -> Tensor:
    """Return the mean error of each track in metres, (B,)."""
    return (errors(found, places) * mask).sum(1) / mask.sum(1).clamp(min=1)


if __name__ == "__main__":
    TrajectoryManager.main()
