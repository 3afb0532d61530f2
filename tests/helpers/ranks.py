"""Train in this process, one of several in torchrun's environment, or alone; print what came out as JSON."""

import json
import os
import sys
import warnings
from contextlib import nullcontext

import torch
from torch import nn

from resque._processes import Processes, together
from resque.data.dataset import LabeledDataset
from resque.training.recipe import named_recipe
from resque.training.trainer import Trainer


class Unused(nn.Module):
    """A network with a parameter that no loss reaches."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(1, 4, 3), nn.GELU(), nn.Flatten(), nn.Linear(36, 3))
        self.idle = nn.Linear(3, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)


MODELS = {
    "plain": lambda: nn.Sequential(nn.Flatten(), nn.Linear(25, 9), nn.GELU(), nn.Linear(9, 3)),
    "unused": Unused,
    "norm": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3)),
    "dropout": lambda: nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Dropout(0.5), nn.Linear(36, 3)),
}
CASES = [
    *((model, "train-sgd", size, 50) for model in ("plain", "unused") for size in (7, 64)),
    ("plain", "retrain-adam,trains=head", 9, 28),
    *((model, "train-sgd", 7, 50) for model in ("norm", "dropout")),
    ("plain", "retrain-adam,augmentation=flip", 7, 50),
]


def train(model: str, recipe: str, batch_size: int, n: int) -> dict:
    """The learning curve of three epochs, and what was warned of."""
    torch.manual_seed(0)
    network = MODELS[model]()
    x, y = torch.rand(n, 1, 5, 5), torch.arange(n) % 3
    data = LabeledDataset("data", x + y[:, None, None, None] / 3, y, torch.arange(n))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        trainer = Trainer(network, data, named_recipe(f"{recipe},batch_size={batch_size}", None, None), seed=1)
        curve = [[*trainer.evaluate(data), *trainer.totals()]]
        for _ in range(3 * trainer.steps_per_epoch):
            trainer.step()
            if not trainer.within_epoch:
                curve.append([*trainer.evaluate(data), *trainer.totals()])
        trainer.end()
    parameters = torch.cat([each.detach().flatten() for each in network.state_dict().values() if each.ndim])
    return {"curve": curve, "parameters": parameters.tolist(), "said": [str(each.message) for each in said]}


def main() -> None:
    rank, count = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    torch.set_num_threads(1)
    if count > 1:
        torch.distributed.init_process_group("gloo")
    with together(Processes(rank, count, rank)) if count > 1 else nullcontext():
        results = [train(*case) for case in CASES]
    sys.stdout.write(json.dumps(results))


if __name__ == "__main__":
    main()
