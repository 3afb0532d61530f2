"""Each corruption against its definition: an independent slow computation, or a property that defines it."""

import colorsys
import io
import math

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates
from scipy.stats import poisson

from resque.data.corruptions import uniform_draws
from resque.data.corruptions.blur import streak
from resque.data.corruptions.draws import Stream
from resque.data.corruptions.noise import _poisson
from resque.data.corruptions.severities import at_level
from resque.data.shifts import parse_shift

SEVERITIES = [2, 4, 6, 8, 10]
GRAY = torch.full((300, 1, 16, 16), 0.5)


def corrupted(name: str, level: int, images: torch.Tensor, seed: int = 3) -> torch.Tensor:
    return parse_shift(f"{name}:{level}")(images, indices=torch.arange(len(images)), seed=seed)


def random_images(n: int = 2, channels: int = 3, height: int = 32, width: int = 32) -> torch.Tensor:
    return torch.rand(n, channels, height, width, generator=torch.Generator().manual_seed(0))


def ramps(height: int, width: int, n: int = 1) -> torch.Tensor:
    """Two channels that hold each pixel's own position, as shares of the image."""
    y, x = torch.meshgrid(torch.arange(height) / (height - 1), torch.arange(width) / (width - 1), indexing="ij")
    return torch.stack([x, y]).expand(n, 2, height, width)


def test_levels_lie_between_the_severities():
    published = (0.0, 1.0, 3.0, 4.0, 8.0, 9.0)
    assert [at_level(published, level) for level in SEVERITIES] == list(published[1:])
    assert [at_level(published, level) for level in range(1, 11, 2)] == [0.5, 2.0, 3.5, 6.0, 8.5]


# Noise


@pytest.mark.parametrize(("level", "sigma"), list(zip(SEVERITIES, [0.04, 0.06, 0.08, 0.09, 0.10], strict=True)))
def test_gaussian_noise_has_its_published_deviation(level, sigma):
    noise = corrupted("gaussian_noise", level, GRAY) - 0.5
    assert float(noise.std()) == pytest.approx(sigma, rel=0.02)
    assert abs(float(noise.mean())) < 5 * sigma / math.sqrt(noise.numel())


@pytest.mark.parametrize(("level", "sigma"), list(zip(SEVERITIES, [0.06, 0.1, 0.12, 0.16, 0.2], strict=True)))
def test_speckle_noise_is_proportional_to_the_value(level, sigma):
    for value in (0.0, 0.2, 0.5):
        noise = corrupted("speckle_noise", level, GRAY * 2 * value) - value
        assert float(noise.std()) == pytest.approx(value * sigma, rel=0.02, abs=1e-9)


@pytest.mark.parametrize(("level", "photons"), list(zip(SEVERITIES, [500, 250, 100, 75, 50], strict=True)))
def test_shot_noise_counts_photons(level, photons):
    counts = corrupted("shot_noise", level, GRAY * 0.6) * photons
    assert torch.allclose(counts, counts.round(), atol=1e-3)
    assert float(counts.mean()) == pytest.approx(0.3 * photons, rel=0.01)
    assert float(counts.var()) == pytest.approx(0.3 * photons, rel=0.03)
    assert not corrupted("shot_noise", level, GRAY * 0).any()


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.7, 3.0, 8.99, 9.0, 12.5, 40.0, 300.0, 1000.0])
def test_poisson_numbers_are_scipys_quantiles(rate):
    draws = torch.linspace(0.0005, 0.9995, 2000, dtype=torch.float64)
    found = _poisson(torch.full_like(draws, rate), draws).numpy()
    exact = poisson.ppf(draws.numpy(), rate) if rate else np.zeros(2000)
    if rate < 9.0:
        assert (found == exact).all()
    assert np.abs(found - exact).max() <= 1
    assert (found != exact).mean() < 0.02


@pytest.mark.parametrize(("level", "share"), list(zip(SEVERITIES, [0.01, 0.02, 0.03, 0.05, 0.07], strict=True)))
def test_impulse_noise_sets_half_of_its_share_to_each_extreme(level, share):
    noisy = corrupted("impulse_noise", level, GRAY)
    for extreme in (0, 1):
        spread = 5 * math.sqrt(share / 2 / GRAY.numel())
        assert float((noisy == extreme).float().mean()) == pytest.approx(share / 2, abs=spread)


# Blur


def point(size: int = 41) -> torch.Tensor:
    image = torch.zeros(1, 1, size, size)
    image[..., size // 2, size // 2] = 1.0
    return image


def moments(image: torch.Tensor) -> tuple[float, float, float, float]:
    """Sum, center (right and down of the middle), and variance along the rows."""
    weights = image[0, 0].double().numpy()
    y, x = np.mgrid[: weights.shape[0], : weights.shape[1]] - (weights.shape[0] // 2)
    total = weights.sum()
    right, down = (weights * x).sum() / total, (weights * y).sum() / total
    return total, right, down, (weights * (x - right) ** 2).sum() / total


@pytest.mark.parametrize(("level", "sigma"), list(zip(SEVERITIES, [0.4, 0.6, 0.7, 0.8, 1.0], strict=True)))
def test_gaussian_blur_is_scipys_filter(level, sigma):
    images = random_images()
    oracle = gaussian_filter(images.double().numpy(), (0, 0, sigma, sigma), mode="nearest", truncate=4.0)
    assert np.abs(corrupted("gaussian_blur", level, images).numpy() - oracle).max() < 2e-3


@pytest.mark.parametrize(
    ("level", "radius", "sigma"),
    list(zip(SEVERITIES, [0.3, 0.4, 0.5, 1.0, 1.5], [0.4, 0.5, 0.6, 0.2, 0.1], strict=True)),
)
def test_defocus_blur_spreads_as_the_published_kernel(level, radius, sigma):
    y, x = np.mgrid[-8:9, -8:9]
    disc = (x**2 + y**2 <= radius**2).astype(float)
    near = np.exp(-0.5 * (np.arange(-1, 2) / sigma) ** 2)
    near /= near.sum()
    published = (disc.sum(0) * np.arange(-8, 9) ** 2).sum() / disc.sum() + 2 * near[0]
    total, right, down, variance = moments(
        corrupted("defocus_blur", level, torch.nn.functional.pad(point(31), (0, 1, 0, 1)))
    )
    assert total == pytest.approx(1.0, abs=1e-5)
    assert (right, down) == pytest.approx((-1.0, -1.0), abs=1e-5)
    assert variance == pytest.approx(published, rel=0.03)


@pytest.mark.parametrize("level", [1, 5, 10])
def test_glass_blur_keeps_the_sum_and_moves_little(level):
    total, right, down, _ = moments(corrupted("glass_blur", level, point().expand(1, 1, 41, 41)))
    assert total == pytest.approx(1.0, abs=1e-5)
    assert math.hypot(right, down) < 8
    blurred = corrupted("glass_blur", level, random_images(4, 1, 40, 40))
    assert float(blurred.mean()) == pytest.approx(float(random_images(4, 1, 40, 40).mean()), abs=0.01)


def test_glass_blur_moves_a_pixel_in_each_direction():
    images = torch.zeros(4000, 1, 9, 9)
    images[:, :, 4, 4] = 1.0
    moved = corrupted("glass_blur", 5, images).mean((0, 1))  # one round; a blur of 0.06 pixels stays in its pixel
    near = torch.stack([moved[4, 5], moved[5, 4], moved[5, 5], moved[4, 3], moved[3, 4], moved[3, 3]])
    assert float(moved.sum()) == pytest.approx(1.0, abs=1e-4)
    assert 0.02 < float(near.min()) < float(near.max()) < 0.2


def test_motion_blur_is_a_half_gaussian_along_its_angle():
    along = np.arange(10)
    weights = np.exp(-0.5 * (along / 2.5) ** 2)
    weights /= weights.sum()
    straight = streak(point().double(), torch.zeros(1), 2.5, 10)[0, 0, 20].numpy()
    assert np.abs(straight[20:30] - weights).max() < 1e-9
    for angle in (0.3, -0.7, 2.0):
        total, right, down, _ = moments(streak(point().double(), torch.tensor([angle]), 2.5, 10))
        length = (weights * along).sum()
        assert (total, right, down) == pytest.approx((1, length * math.cos(angle), length * math.sin(angle)), abs=1e-6)
    smeared = corrupted("motion_blur", 10, torch.nn.functional.pad(point(31), (0, 1, 0, 1)))
    turn = float(uniform_draws(torch.tensor([0]), 3, Stream.MOTION_BLUR)) - 0.5
    total, right, down, _ = moments(smeared)
    assert total == pytest.approx(1.0, abs=1e-4)
    assert math.atan2(down + 1, right + 1) == pytest.approx(turn * math.pi / 2, abs=0.02)


@pytest.mark.parametrize("level", [2, 10])
def test_zoom_blur_averages_magnified_images(level):
    image = random_images(1, 1, 12, 15)
    y, x = np.mgrid[:12, :15].astype(float)
    factors = [1.0, *(1.0 + 0.01 * step for step in range(round(2.5 * level) + 1))]
    zoomed = [
        map_coordinates(image[0, 0].double().numpy(), [(y - 5.5) / f + 5.5, (x - 7) / f + 7], order=1) for f in factors
    ]
    assert np.abs(corrupted("zoom_blur", level, image)[0, 0].numpy() - np.mean(zoomed, 0)).max() < 1e-5


# Weather


@pytest.mark.parametrize(("level", "density"), list(zip(SEVERITIES, [0.2, 0.5, 0.75, 1.0, 1.5], strict=True)))
def test_fog_adds_clouds_and_dims_to_the_brightest_value(level, density):
    image = torch.full((5, 3, 32, 32), 0.4)
    clouds = corrupted("fog", level, image) * (0.4 + density) / 0.4 - 0.4
    assert torch.allclose(clouds.amin((1, 2, 3)), torch.zeros(5), atol=1e-5)
    assert torch.allclose(clouds.amax((1, 2, 3)), torch.full((5,), density), atol=1e-5)
    rough = (clouds[..., 1:] - clouds[..., :-1]).abs().mean()
    assert float(rough) < 0.1 * density


@pytest.mark.parametrize(
    ("level", "kept", "ice"), list(zip(SEVERITIES, [1, 1, 0.9, 0.85, 0.75], [0.2, 0.3, 0.4, 0.4, 0.45], strict=True))
)
def test_frost_adds_ice_to_the_darkened_image(level, kept, ice):
    black, gray = (corrupted("frost", level, torch.full((50, 3, 32, 32), value)) for value in (0.0, 0.3))
    assert torch.allclose(gray, (0.3 * kept + black).clamp(max=1.0), atol=1e-6)
    assert float(black[:, 2].max()) == pytest.approx(ice, rel=0.01)
    assert float(black[:, 2].mean()) == pytest.approx(0.55 * ice, rel=0.1)
    assert bool((black[:, 2] >= black[:, 0]).all())


@pytest.mark.parametrize(
    ("level", "mean", "threshold", "kept"),
    [(2, 0.1, 0.6, 0.95), (4, 0.1, 0.5, 0.9), (6, 0.15, 0.55, 0.9), (8, 0.25, 0.6, 0.85), (10, 0.3, 0.65, 0.8)],
)
def test_snow_adds_twice_the_noise_above_its_threshold(level, mean, threshold, kept):
    values = np.linspace(threshold, 2.0, 20001)
    density = np.exp(-0.5 * ((values - mean) / 0.2) ** 2) / 0.2 / math.sqrt(2 * math.pi)
    fallen = corrupted("snow", level, torch.zeros(1000, 1, 32, 32))
    expected = 2 * np.trapezoid(density * np.minimum(values, 1), values) + (1 - kept) * 0.5
    assert float(fallen.mean()) == pytest.approx(expected, rel=0.03)


def test_snow_falls_within_45_degrees_of_the_vertical():
    fallen = corrupted("snow", 10, torch.zeros(300, 1, 32, 32))[:, 0]
    fallen = fallen - fallen.mean((1, 2), keepdim=True)
    far, variance = 6, fallen.var()
    down = float((fallen[:, far:] * fallen[:, :-far]).mean() / variance)
    aside = float((fallen[:, :, far:] * fallen[:, :, :-far]).mean() / variance)
    assert down > 0.1 > 2 * abs(aside)


def test_brightness_raises_the_value_of_hsv():
    image = random_images(1, 3, 5, 6)
    image[..., 0, 0] = 0.0
    brighter = corrupted("brightness", 7, image)
    for pixel, found in zip(image[0].flatten(1).T.tolist(), brighter[0].flatten(1).T.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
        assert found == pytest.approx(colorsys.hsv_to_rgb(hue, saturation, min(1.0, value + 0.175)), abs=1e-5)


@pytest.mark.parametrize(
    ("level", "water", "mud"), [(2, 0.023, 0), (4, 0.078, 0), (6, 0.32, 0), (8, 0.32, 0.16), (10, 0.32, 0.3)]
)
def test_spatter_covers_its_published_share(level, water, mud):
    wet = corrupted("spatter", level, torch.zeros(400, 1, 32, 32))
    covered = (wet > 0).float().mean()
    assert float(covered) == pytest.approx(1 - (1 - water) * (1 - mud), abs=0.02)
    muddy = corrupted("spatter", level, torch.ones(400, 3, 32, 32))
    assert float((muddy < 1).all(1).float().mean()) == pytest.approx(mud, abs=0.02)


# Values and coding


def test_low_contrast_shrinks_around_the_mean_of_each_channel():
    images = random_images()
    for level, kept in zip(SEVERITIES, [0.75, 0.5, 0.4, 0.3, 0.15], strict=True):
        flat = corrupted("low_contrast", level, images)
        mean = images.mean((2, 3), keepdim=True)
        assert torch.allclose(flat - mean, kept * (images - mean), atol=1e-6)


def test_jpeg_compression_has_the_published_quality():
    image = random_images(1)
    for level, quality in zip(SEVERITIES, [80, 65, 58, 50, 40], strict=True):
        stream = io.BytesIO()
        pixels = (image[0] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(stream, "JPEG", quality=quality)
        found = (corrupted("jpeg_compression", level, image)[0] * 255).round().byte().permute(1, 2, 0).numpy()
        assert (found == np.asarray(Image.open(stream))).all()


@pytest.mark.parametrize(("level", "share"), [(2, 0.95), (10, 0.65)])
@pytest.mark.parametrize("size", [9, 32])
def test_pixelate_averages_over_blocks_around_the_center(level, share, size):
    image = random_images(1, 1, size, size)
    fine = 200  # points a pixel along an axis
    points = (np.arange(size * fine) + 0.5) / fine
    block = np.floor((points - size / 2) * share + size / 2).astype(int)
    values = np.repeat(np.arange(size), fine)
    to_blocks = np.zeros((block.max() + 1, size))
    np.add.at(to_blocks, (block, values), 1.0)
    to_blocks = to_blocks[to_blocks.sum(1) > 0]
    means = to_blocks / to_blocks.sum(1, keepdims=True)
    whole = (to_blocks / fine).T @ means
    oracle = whole @ image[0, 0].double().numpy() @ whole.T
    assert np.abs(corrupted("pixelate", level, image)[0, 0].numpy() - oracle).max() < 0.02


def test_saturate_changes_the_saturation_of_hsv():
    image = random_images(1, 3, 5, 6)
    image[..., 0, 0] = 0.4
    for level, factor, added in ((6, 1.5, 0.0), (8, 2.0, 0.1), (10, 2.5, 0.2), (2, 7 / 6, 0.0)):
        saturated = corrupted("saturate", level, image)[0].flatten(1).T.tolist()
        for pixel, found in zip(image[0].flatten(1).T.tolist()[1:], saturated[1:], strict=True):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixel)
            expected = colorsys.hsv_to_rgb(hue, min(1.0, saturation * factor + added), value)
            assert found == pytest.approx(expected, abs=1e-5)
        assert saturated[0] == pytest.approx([0.4] * 3)


@pytest.mark.parametrize("level", [1, 4, 10])
def test_inversion_twice_is_the_image_itself(level):
    images = random_images(2000, 1, 3, 3)
    once = corrupted("inversion", level, images)
    drawn = (once == 1 - images).flatten(1).all(1)
    assert bool(((once == images).flatten(1).all(1) | drawn).all())
    assert float(drawn.float().mean()) == pytest.approx(level / 10, abs=5 * 0.5 / math.sqrt(2000))
    assert torch.allclose(corrupted("inversion", level, once), images, atol=1e-7)


def test_gamma_and_solarize_are_their_formulas():
    images = random_images()
    assert torch.allclose(corrupted("gamma", 5, images), images**2, atol=1e-6)
    solarized = corrupted("solarize", 5, images)
    assert torch.equal(solarized[images <= 0.6], images[images <= 0.6])
    assert torch.equal(solarized[images > 0.6], 1 - images[images > 0.6])


# Geometry


@pytest.mark.parametrize("level", [1, 4, 10])
def test_translation_moves_a_point_by_its_length(level):
    images = point(41).expand(200, 1, 41, 41)
    moved = corrupted("translation", level, images)
    centers = torch.tensor([moments(each[None])[1:3] for each in moved])
    assert torch.allclose(centers.norm(dim=1), torch.full((200,), 0.025 * level * 41).double(), atol=1e-3)
    assert float(centers.mean(0).norm()) < 5 * 0.025 * level * 41 / math.sqrt(200)


@pytest.mark.parametrize("level", [1, 5, 10])
def test_shear_zoom_and_perspective_look_where_they_say(level):
    """An image of its own coordinates shows where each pixel comes from."""
    height, width = 21, 33
    y, x = np.mgrid[:height, :width].astype(float)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    angle = 2 * math.pi * float(uniform_draws(torch.tensor([0]), 3, Stream.PERSPECTIVE))
    depth = 1 + 0.05 * level * (math.cos(angle) * x * 2 / width + math.sin(angle) * y * 2 / height)
    factor = 1 + 0.1 * level
    sources = {
        "shear": (x + 0.06 * level * y, y),
        "zoom_in": (x / factor, y / factor),
        "zoom_out": (x * factor, y * factor),
        "perspective": (x / depth, y / depth),
    }
    for name, (right, down) in sources.items():
        found = corrupted(name, level, ramps(height, width))[0].numpy()
        assert np.abs(found[0] - (right / (width - 1) + 0.5).clip(0, 1)).max() < 1e-4, name
        assert np.abs(found[1] - (down / (height - 1) + 0.5).clip(0, 1)).max() < 1e-4, name


@pytest.mark.parametrize("level", [3, 10])
def test_elastic_displaces_by_its_field_and_affine_map(level):
    """At the center the affine map adds the mean of two uniform numbers, of variance (corner)² / 6."""
    found = (corrupted("elastic", level, ramps(33, 32, 3000))[:, 0, 16, 16] - 16 / 31) * 31
    weights = np.exp(-0.5 * (np.arange(-4, 5) / 0.96) ** 2)
    weights /= weights.sum()
    field = (0.32 * level) ** 2 / 3 * (weights**2).sum() ** 2
    assert float(found.var()) == pytest.approx(field + (0.096 * level) ** 2 / 6, rel=0.1)
    assert abs(float(found.mean())) < 5 * float(found.std()) / math.sqrt(3000)
    down = corrupted("elastic", level, ramps(33, 32, 3000))[:, 1, 16, 16]
    assert abs(float(torch.corrcoef(torch.stack([found, down]))[0, 1])) < 5 / math.sqrt(3000)


@pytest.mark.parametrize("level", [1, 5, 10])
def test_occlusion_covers_one_gray_square_anywhere(level):
    covered = corrupted("occlusion", level, torch.ones(300, 1, 20, 30))[:, 0] == 0.5
    side = round(0.06 * level * 20)
    assert bool((covered.sum((1, 2)) == side**2).all())
    assert bool((covered.any(2).sum(1) == side).all())
    assert bool((covered.any(1).sum(1) == side).all())
    tops = covered.any(2).float().argmax(1)
    assert (int(tops.min()), int(tops.max())) == (0, 20 - side)


# Labels


@pytest.mark.parametrize("level", [1, 10])
def test_pair_flip_turns_a_share_of_each_class_into_the_next(level):
    labels = torch.arange(4).repeat(2000) * 3
    rows, flipped = parse_shift(f"pair_flip:{level}").apply_to_labels(labels, indices=torch.arange(8000), seed=1)
    assert rows.tolist() == list(range(8000))
    for label in (0, 3, 6, 9):
        found = flipped[labels == label]
        assert set(found.tolist()) == {label, (label + 3) % 12}
        share = 0.045 * level
        assert float((found != label).float().mean()) == pytest.approx(share, abs=5 * math.sqrt(share / 2000))


@pytest.mark.parametrize(("level", "rare"), [(5, 30), (10, 3)])
def test_step_imbalance_thins_the_second_half_of_the_classes(level, rare):
    labels = torch.arange(5).repeat(300)
    rows, left = parse_shift(f"step_imbalance:{level}").apply_to_labels(labels, indices=torch.arange(1500), seed=2)
    assert torch.bincount(left).tolist() == [300, 300, 300, rare, rare]
    assert torch.equal(labels[rows], left)
    one, _ = parse_shift("step_imbalance:10").apply_to_labels(torch.tensor([0, 1]), indices=torch.arange(2), seed=2)
    assert one.tolist() == [0, 1]
