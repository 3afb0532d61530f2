"""A sampled index beside a full pass, on Fashion-MNIST under a moderate shift."""

from collections.abc import Callable

import resque
from benchmarks.measuring import Case, Comparison, fashion_mnist, scaled
from benchmarks.sampling import trained
from resque.models.inference import eval_mode

SHIFT = "gaussian:4"
FULL, SAMPLED, BARE = "RESQUE_dist of all data", "RESQUE_dist, ± 3 %", "bare pass over all data"


def sampled(n: int, scale: float) -> dict[str, Callable[[], object]]:
    """Return a bare pass, the full index and the sampled one."""
    folder = fashion_mnist()
    clean, new = (
        f"idx:{folder}/{part}-images-idx3-ubyte.gz,{folder}/{part}-labels-idx1-ubyte.gz" for part in ("t10k", "train")
    )
    original = resque.load_data(f"{clean}@{scaled(10_000, scale, 1000)}")
    data, model = resque.load_data(f"{new}@{scaled(n, scale, 1000)}+{SHIFT}"), trained(original)
    before = resque.profile(model, original)

    def bare() -> None:
        with eval_mode(model):
            for inputs, _ in data:
                model(inputs)

    return {
        FULL: lambda: resque.resque_dist(before, resque.profile(model, data)),
        SAMPLED: lambda: resque.sampled_dist(model, before, data, "0.03"),
        BARE: bare,
    }


CASES = (
    Case(
        "sampling",
        f"Fashion-MNIST, 60,000 images, {SHIFT}",
        lambda scale: sampled(60_000, scale),
        (Comparison(SAMPLED, FULL), Comparison(SAMPLED, BARE, 0.1)),
        rounds=5,
        most_s=60.0,
    ),
)
