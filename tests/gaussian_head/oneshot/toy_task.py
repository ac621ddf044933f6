"""A tiny adversarial training, and (as a program) a three runs of it: python toy_task.py OUT."""

from __future__ import annotations

import copy
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from gaussian_head.oneshot.fitting import FitConfig, Task, fit


class Toy(Task):
    """Two networks, each with its optimizer; dropout, batch norm and an average, so that all kinds of state are met."""

    name = "toy"

    def __init__(self, samples: int = 4, seed: int = 3) -> None:
        torch.manual_seed(5)
        generator = nn.Sequential(
            nn.Linear(3, 8, bias=False), nn.BatchNorm1d(8), nn.Tanh(), nn.Dropout(0.2), nn.Linear(8, 2)
        )
        judge = nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        average = copy.deepcopy(generator).requires_grad_(False)
        self.networks = {"generator": generator, "judge": judge, "average": average}
        self.optimizers = {
            "generator": torch.optim.Adam(generator.parameters(), 1e-2),
            "judge": torch.optim.AdamW([{"params": [p]} for p in judge.parameters()], 1e-2),
        }
        self.samples, self.seed = samples, seed
        self.shown: list[int] = []
        self.spoiled: set[int] = set()

    def batch(self, step: int, rank: int) -> Tensor:
        rng = np.random.default_rng((self.seed, rank, step))
        return torch.from_numpy(rng.normal(size=(self.samples, 5)).astype(np.float32))

    def step(self, batch: Tensor, step: int, update) -> dict[str, Tensor]:
        generator, judge, average = self.networks.values()
        made = generator(batch[:, :3])
        real = nn.functional.softplus(-judge(batch[:, 3:])).mean()
        fake = nn.functional.softplus(judge(made.detach())).mean()
        update(real + fake, self.optimizers["judge"])
        loss = nn.functional.softplus(-judge(made)).mean() + (made - batch[:, 3:]).square().mean()
        if step in self.spoiled:
            loss = loss * float("nan")
        update(loss, self.optimizers["generator"])
        with torch.no_grad():
            for mean, value in zip(average.parameters(), generator.parameters(), strict=True):
                mean.lerp_(value, 0.1)
        return {"judge": (real + fake).detach(), "generator": loss.detach()}

    def show(self, step: int, writer) -> None:
        self.shown.append(step)


def silent(items: Iterable[int], total: int, label: str, first: int = 0) -> Iterator[int]:
    yield from items


if __name__ == "__main__":
    torch.set_num_threads(1)
    for run, steps in (("straight", 3), ("stopped", 2), ("stopped", 3)):
        fit(Toy(), Path(sys.argv[1]) / run, FitConfig(steps, 1, 100, 100), silent)
