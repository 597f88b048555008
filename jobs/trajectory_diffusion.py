"""Generate whole car tracks out of noise: a small diffusion model that draws itself a map of the streets on the way.

python jobs/trajectory_diffusion.py sweep --workers 2 --store store/diffusion
python jobs/trajectory_diffusion_report.py store/diffusion PICTURE.png
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jimmy_manager import TrainedManager
from jimmy_manager.datasets import computeDistance, computeJSD, interpTraj
from jimmy_manager.diffusion import DDIM
from jimmy_manager.models import MHSA, FCLayers, JimmyModel, PosEncoderLearned, Tensor, func, nn, torch

if __package__:  # as jobs.trajectory_diffusion, or else from its own folder
    from .gps_tracks import UNIT_M, GpsTracks
else:
    from gps_tracks import UNIT_M, GpsTracks

SPREAD = 0.45
"""The standard deviation of normalised places, by which they are divided for the diffusion."""
STEP = 0.04
"""The distance between neighbouring points in these units, roughly."""
EDGE = 1.2
"""Where the map ends, in normalised places; further out it reads as at its edge."""


class TrackDiffusionManager(TrainedManager):
    """Train the configurations of ``trajectory_diffusion.yaml``, and compare with real tracks now and then.

    ``loss_eval`` is the error of the denoiser, ``jsd_eval`` and ``length_eval`` tell how good its tracks are.
    """

    num_epochs = 40
    default_config = "trajectory_diffusion_defaults.yaml"
    choices = "trajectory_diffusion.yaml"
    main_metric = "jsd_eval"
    compare_every, compared = 10, 256

    def eval(self) -> dict[str, float]:
        record = super().eval()
        if self.epoch and self.epoch % self.compare_every == 0:
            real = self.data["eval"].track[: self.compared]
            with self.model.ema.applied():
                made = self.model.generate(len(real))
            record |= {f"{name}_eval": value for name, value in compare(made, real).items()}
        return record


class WholeTracks(GpsTracks):
    """Batches of ``track`` (B, n_points, 2): whole tracks as driven, resampled to one number of points.

    ``n_train`` of them are to learn from, and an eighth as many in each other set.
    """

    def __init__(
        self, set_name: str, batch_size: int, *args: Any, n_train: int = 8000, n_points: int = 64, **kwargs: Any
    ) -> None:
        n_tracks = n_train if set_name == "train" else n_train // 8
        super().__init__(set_name, batch_size, *args, n_tracks=n_tracks, **kwargs)
        self.track = interpTraj(self.clean, n_points, traj_lengths=self.lengths)

    def __getitem__(self, idx: int) -> dict[str, Tensor]:
        return {"track": self.track[self._indices[idx * self.batch_size : (idx + 1) * self.batch_size]]}


class TrackDiffusion(JimmyModel):
    """Predicts the velocity (Salimans & Ho 2022) of noisy tracks (B, n_points, 2); `generate` makes tracks of noise.

    It works in two stages. The first sees the noisy track alone, and guesses how it ran. The second looks at a map in
    the places of that guess, and corrects it. The map is learned with all the rest: features at the corners of square
    grids with ``map_sizes`` lines each way (none: no map), interpolated between them.
    """

    def __init__(
        self, n_points: int = 64, patch: int = 8, width: int = 96, layers: int = 2, heads: int = 4,
        map_sizes: tuple[int, ...] = (64, 192), noise_steps: int = 200, **training: Any,
    ) -> None:
        super().__init__(**training)
        self.train_loss_names, self.eval_loss_names = ["Train/Main", "Train/Guess"], ["Eval/Main", "Eval/Guess"]
        self.n_points = n_points
        self.process = DDIM(2e-5, 0.3, noise_steps, scale_mode="log", skip_step=4)
        self.rates = torch.exp(torch.linspace(0, 7, width // 2))
        self.time = FCLayers([width, width, width], act=nn.SiLU(), final_act=nn.SiLU())
        self.map = nn.ParameterList(0.1 * torch.randn(1, 8, size, size) for size in map_sizes)
        self.guess = Stage(6, width, layers, heads, patch, n_points)
        self.correct = Stage(8 + 8 * len(map_sizes), width, layers, heads, patch, n_points)

    def forward(self, x_t: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """Return the velocity of tracks ``x_t`` (B, n_points, 2) at noise steps ``t`` (B,), and what was guessed."""
        alpha_bar = self.process.alpha_bars[t, :, None].to(x_t.dtype)  # (B, 1, 1)
        noise = (1 / alpha_bar - 1).sqrt()
        phase = t[:, None] / self.process.T * self.rates.to(x_t.device)
        time = self.time(torch.cat([phase.sin(), phase.cos()], -1))[:, None]  # (B, 1, width)
        # Of order one at every noise: no network finds the ten metres that a point is off among kilometres.
        seen = x_t / alpha_bar.sqrt()
        step, bend = differences(seen)
        noisy = torch.cat([x_t, step / (STEP**2 + 2 * noise**2).sqrt(), bend / (STEP**2 + 6 * noise**2).sqrt()], -1)
        first = self.guess(noisy, time)
        guess = self.process.extractVelocity(x_t, t, first.detach())[0]
        step, bend = differences(guess)
        steps = torch.cat([step / STEP, bend / STEP], -1)
        second = self.correct(torch.cat([guess, (seen - guess) / noise, steps, *self.read_map(guess)], -1), time)
        return first + second, first

    def read_map(self, places: Tensor) -> list[Tensor]:
        """Return the features of each map at ``places`` (B, L, 2), each (B, L, 8)."""
        grid = (places * (SPREAD / EDGE)).clamp(-1, 1).reshape(1, 1, -1, 2)
        found = [func.grid_sample(each, grid, align_corners=True) for each in self.map]  # (1, 8, 1, B * L)
        return [each.reshape(8, -1).T.unflatten(0, places.shape[:2]) for each in found]

    def trainStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        x0 = data_dict["track"] / SPREAD
        t = torch.randint(self.process.T, (len(x0),), device=x0.device)
        loss, guess_loss = self.losses(x0, t, torch.randn_like(x0))
        self.backwardOptimize(loss + guess_loss)
        return {"Train/Main": loss.detach(), "Train/Guess": guess_loss.detach()}, {}

    @torch.no_grad()
    def evalStep(self, data_dict: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
        x0 = data_dict["track"] / SPREAD
        # The same noise each time, lest the draw decide which epoch and which run are better.
        draw = torch.Generator(x0.device).manual_seed(0)
        eps = torch.randn(x0.shape, generator=draw, device=x0.device)
        t = torch.arange(len(x0), device=x0.device) * 37 % self.process.T
        loss, guess_loss = self.losses(x0, t, eps)
        return {"Eval/Main": loss, "Eval/Guess": guess_loss}, {}

    def losses(self, x0: Tensor, t: Tensor, eps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean squared errors of the velocity and of the one guessed first."""
        velocity = self.process.computeVelocity(x0, t, eps)
        found, guess = self(self.process.diffuse(x0, t, eps), t)
        return func.mse_loss(found, velocity), func.mse_loss(guess, velocity)

    @torch.no_grad()
    def generate(self, count: int, seed: int = 0) -> Tensor:
        """Return ``count`` tracks (count, n_points, 2) in normalised places; other ones for another seed."""
        device = self.process.device
        draw = torch.Generator(device).manual_seed(seed)
        noise = torch.randn(count, self.n_points, 2, generator=draw, device=device)
        parts = [self.process.denoise(part, lambda x, t: (None, None, self(x, t)[0])) for part in noise.split(256)]
        return torch.cat(parts) * SPREAD


class Stage(nn.Module):
    """Each point for itself, then patches of ``patch`` points as tokens of a Transformer, then each point again."""

    def __init__(self, d_in: int, width: int, layers: int, heads: int, patch: int, n_points: int) -> None:
        super().__init__()
        self.patch = patch
        self.level = nn.Linear(width, 16)
        self.point = FCLayers([d_in + 16, width, width // 2], act=nn.SiLU(), final_act=nn.SiLU())
        self.gather = nn.Linear(patch * width // 2, width)
        self.position = PosEncoderLearned(width, max_len=n_points // patch)
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(layers))
        self.spread = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, patch * width // 2))
        self.head = FCLayers([width, width, 2], act=nn.SiLU())

    def forward(self, features: Tensor, time: Tensor) -> Tensor:
        """Return what ``features`` (B, L, d_in) at ``time`` (B, 1, width) make of each point, (B, L, 2)."""
        level = self.level(time).expand(-1, features.shape[1], -1)
        points = self.point(torch.cat([features, level], -1))  # (B, L, width / 2)
        x = self.position(self.gather(points.unflatten(1, (-1, self.patch)).flatten(2)))  # (B, L / patch, width)
        for block in self.blocks:
            x = block(x, time)
        around = self.spread(x).unflatten(-1, (self.patch, -1)).flatten(1, 2)  # (B, L, width / 2)
        return self.head(torch.cat([points, around], -1))


class Block(nn.Module):
    """One layer of a Transformer whose normalisations are steered by the time (Peebles & Xie 2023, section 3.2)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width, elementwise_affine=False) for _ in range(2))
        self.attend, self.think = MHSA(width, heads), FCLayers([width, 3 * width, width], act=nn.SiLU())
        self.steer = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.steer.weight)
        nn.init.zeros_(self.steer.bias)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        scale1, shift1, gate1, scale2, shift2, gate2 = self.steer(time).chunk(6, -1)
        x = x + gate1 * self.attend(self.norms[0](x) * (1 + scale1) + shift1)
        return x + gate2 * self.think(self.norms[1](x) * (1 + scale2) + shift2)


def differences(places: Tensor) -> tuple[Tensor, Tensor]:
    """Return the step from each point of tracks (B, L, 2) to its next, and how that differs from the one before."""
    steps = torch.cat([places[:, :1], places, places[:, -1:]], 1).diff(dim=1)  # (B, L + 1, 2), 0 at both ends
    return steps[:, 1:], steps.diff(dim=1)


def compare(made: Tensor, real: Tensor) -> dict[str, float]:
    """Compare tracks (B, L, 2): ``jsd``, 0 to ln 2, of where their points lie; ``length``, km, of how long they are.

    The second is the Wasserstein distance: how much longer or shorter, in the mean, each of one set would have to be.
    """
    km = [computeDistance(each).sort().values * UNIT_M / 1000 for each in (made, real)]
    bounds = (-EDGE, -EDGE, EDGE, EDGE)
    return {"jsd": computeJSD(made, real, bounds=bounds), "length": float((km[0] - km[1]).abs().mean())}


if __name__ == "__main__":
    TrackDiffusionManager.main()
