from torch import linspace, nn, optim, rand

from jimmy_manager import Manager


class Sine(Manager):
    num_epochs, state = 20, ("model", "optimizer")
    choices = {"width": [8, 32], "lr": [0.003, 0.03], "seed": [0, 1, 2]}

    def setup(self, config):
        super().setup(config)
        self.model = nn.Sequential(nn.Linear(1, config.width), nn.Tanh(), nn.Linear(config.width, 1))
        self.optimizer = optim.Adam(self.model.parameters(), lr=config.lr)

    def loss(self, x):
        return (self.model(x) - x.sin()).square().mean()

    def train(self):
        for _ in range(50):
            self.optimizer.zero_grad()
            self.loss(6 * rand(64, 1) - 3).backward()
            self.optimizer.step()

    def eval(self):
        return {"loss": self.loss(linspace(-3, 3, 100)[:, None]).item()}


if __name__ == "__main__":
    Sine.main()
