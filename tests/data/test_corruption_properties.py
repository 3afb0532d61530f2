"""What holds for every corruption: range, sizes, channels, constant images, and levels that grow."""

import pytest
import torch
from sklearn.datasets import load_sample_image

from resque.data.corruptions import IMAGE_CORRUPTIONS
from resque.data.loading import load_data
from resque.data.shifts import LEVELS, parse_shift
from resque.errors import DataError

FIRST = {"gaussian", "blur", "salt_pepper", "rotation", "contrast", "jpeg", "bit_depth", "desaturate"}
NEW = [name for name in IMAGE_CORRUPTIONS if name not in FIRST]
COLOR = {"desaturate", "saturate"}
KEEP_CONSTANTS = [
    *("blur", "gaussian_blur", "defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "pixelate", "low_contrast"),
    *("rotation", "translation", "perspective", "shear", "zoom_in", "zoom_out", "elastic"),
]


def corrupted(name: str, level: int, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    return parse_shift(f"{name}:{level}")(images, indices=torch.arange(len(images)), seed=seed)


def photographs(n: int = 24, side: int = 32) -> torch.Tensor:
    """Patches of a photograph."""
    pixels = torch.from_numpy(load_sample_image("china.jpg").copy()).permute(2, 0, 1).float() / 255.0
    patches = pixels.unfold(1, side, 2 * side).unfold(2, side, 2 * side).flatten(1, 2).transpose(0, 1)
    return patches[:n].contiguous()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (1, 5), (40, 3)])
@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_any_size_gives_values_from_zero_to_one_or_a_reason(name, size, channels):
    images = torch.rand(1, channels, *size, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    for level in (1, 6, 10):
        if channels == 1 and name in COLOR:
            with pytest.raises(DataError, match=f"{name} needs color, and these images are gray"):
                corrupted(name, level, images)
            continue
        changed = corrupted(name, level, images)
        assert (changed.shape, changed.dtype) == (images.shape, images.dtype)
        assert bool(changed.isfinite().all())
        assert 0.0 <= float(changed.min()) <= float(changed.max()) <= 1.0
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", IMAGE_CORRUPTIONS)
def test_batch_and_order_do_not_matter(name):
    images, order = photographs(12), torch.tensor([6, 2, 0, 11, 5, 1, 4, 10, 3, 9, 8, 7])
    shift = parse_shift(f"{name}:9")
    whole = shift(images, indices=torch.arange(12), seed=5)
    each = torch.cat([shift(images[i : i + 1], indices=torch.tensor([i]), seed=5) for i in range(12)])
    shuffled = shift(images[order], indices=order, seed=5)
    assert torch.allclose(whole, each, atol=2e-6)
    assert torch.allclose(whole[order], shuffled, atol=2e-6)


@pytest.mark.parametrize("name", KEEP_CONSTANTS)
@pytest.mark.parametrize("level", [1, 5, 10])
def test_constant_images_stay_constant(name, level):
    images = torch.tensor([0.0, 0.3, 1.0])[:, None, None, None].expand(3, 3, 13, 10)
    assert torch.allclose(corrupted(name, level, images), images, atol=2e-6)


def distances(name: str, images: torch.Tensor, levels=LEVELS) -> list[float]:
    """The mean distance of each level to the original."""
    return [float((corrupted(name, level, images) - images).abs().mean()) for level in levels]


@pytest.mark.parametrize("name", [name for name in NEW if name not in {"frost", "saturate"}])
def test_a_higher_level_changes_real_images_more(name):
    found = distances(name, load_data("digits@28px@150").images)
    assert found == sorted(found)
    assert 0.0 < found[0] < found[4] < found[9]


@pytest.mark.parametrize("name", [name for name in NEW if name != "frost"])
def test_a_higher_level_changes_photographs_more(name):
    found = distances(name, photographs(), (1, 5, 10))
    assert 0.0 < found[0] < found[1] < found[2]


def test_more_frost_leaves_less_of_the_image():
    """Frost darkens, too, so that distances need not grow; what the original cannot explain does."""
    images = load_data("digits@28px@150").images.flatten(1)
    found = []
    for level in LEVELS:
        frosted = corrupted("frost", level, images.reshape(-1, 1, 28, 28)).flatten(1)
        pairs = torch.stack([images, frosted], 1)
        centered = pairs - pairs.mean(2, keepdim=True)
        product = (centered[:, 0] * centered[:, 1]).sum(1) / centered.norm(dim=2).prod(1)
        found.append(1.0 - float(product.mean()))
    assert found == sorted(found)


@pytest.mark.parametrize("name", ["frost", "snow", "fog", "spatter", "translation", "glass_blur", "occlusion"])
def test_samples_and_seeds_differ(name):
    images = photographs(1).expand(2, -1, -1, -1)
    first, other = corrupted(name, 6, images), corrupted(name, 6, images, seed=1)
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize("name", ["defocus_blur", "gaussian_blur", "translation", "zoom_in", "shear", "motion_blur"])
def test_lengths_scale_with_the_width(name):
    """A smooth image of twice the width is changed as the image itself."""
    y, x = torch.meshgrid(torch.linspace(-3, 3, 128), torch.linspace(-3, 3, 128), indexing="ij")
    large = (0.5 + 0.5 * torch.sin(x * 1.1 + 0.4) * torch.cos(y * 0.9))[None, None]
    small = torch.nn.functional.avg_pool2d(large, 2)
    shrunk = torch.nn.functional.avg_pool2d(corrupted(name, 10, large), 2)
    change = float((corrupted(name, 10, small) - small).abs().mean())
    assert float((shrunk - corrupted(name, 10, small)).abs().mean()) < 0.25 * change


@pytest.mark.parametrize("text", ["gausian:3", "fogg:1", "", "x" * 300, "Fog:3", "motion-blur:2"])
def test_an_unknown_shift_names_the_nearest_in_one_short_line(text):
    with pytest.raises(DataError) as caught:
        parse_shift(text)
    shown = str(caught.value).replace(text, "") if text else str(caught.value)
    assert len(shown) <= 80
    assert "\n" not in shown
    nearest = {"gausian:3": "gaussian", "fogg:1": "fog", "Fog:3": "fog", "motion-blur:2": "motion_blur"}
    assert nearest.get(text, "nearest are") in str(caught.value)
