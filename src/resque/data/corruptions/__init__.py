"""Image corruptions at ten levels, with counter-based random numbers.

Images are floats in [0, 1], ``(n, channels, height, width)``. Each random number is a splitmix64 hash of the seed, the
index of the sample and the position, so a sample's noise does not depend on its batch, its order or the device.

Two groups have levels of their own: the eight of the first releases (``gaussian``, ``blur``, ``salt_pepper``,
``rotation``, ``contrast``, ``jpeg``, ``bit_depth``, ``desaturate``), and those without published severities
(``translation`` and the like). The other nineteen are those of Hendrycks and Dietterich (Benchmarking neural network
robustness to common corruptions and perturbations, ICLR 2019) with the parameters of CIFAR-10-C: severity s is level
2 · s, the levels between are interpolated, and lengths scale with the width. Where one differs, its function says so.
"""

from collections.abc import Callable

from torch import Tensor

from resque.data.corruptions.blur import BLURS
from resque.data.corruptions.digital import DIGITAL
from resque.data.corruptions.draws import Stream, uniform_draws
from resque.data.corruptions.geometry import GEOMETRY
from resque.data.corruptions.noise import NOISES
from resque.data.corruptions.weather import WEATHER

__all__ = ["IMAGE_CORRUPTIONS", "Stream", "uniform_draws"]

IMAGE_CORRUPTIONS: dict[str, Callable[[Tensor, int, Tensor, int], Tensor]] = {
    **NOISES,
    **BLURS,
    **WEATHER,
    **DIGITAL,
    **GEOMETRY,
}
"""Name → function of ``(images, level, indices, seed)``; results may leave [0, 1] and are not yet clamped."""
