"""Augmentations of image batches."""

import pytest
import torch

from resque.data.augmentation import AUGMENTATIONS, build_augmentation


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_augmentation_differs_by_sample_and_repeats_with_the_seed(name, channels):
    pytest.importorskip("kornia")
    images = torch.rand(1, channels, 16, 16).expand(12, -1, -1, -1)
    torch.manual_seed(3)
    one = build_augmentation((name,))(images)
    torch.manual_seed(3)
    assert torch.equal(build_augmentation((name,))(images), one)
    assert len({tuple(image.flatten().tolist()) for image in one}) > 1
    assert one.shape == images.shape
    assert 0.0 <= float(one.min()) <= float(one.max()) <= 1.0
