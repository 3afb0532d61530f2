"""Build the demo's classifier and the paper's networks for images of 32 × 32 pixels.

A model specification can name these functions: ``resque.networks:resnet18``. The paper's networks take the number of
classes. They consist of torchvision's and timm's blocks; where they depart from those libraries' models, the small
images require it.
"""

from torch import nn

from resque._optional import import_optional

__all__ = ["resnet18", "small_cnn", "vgg16", "vit"]


def small_cnn() -> nn.Module:
    """Build the demo's classifier: three convolutions, 24,000 parameters, gray images, ten classes.

    Example:
        >>> import torch
        >>> small_cnn()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(
        *block(1, 16, stride=2),
        *block(16, 32),
        nn.MaxPool2d(2),
        *block(32, 64),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def resnet18(num_classes: int = 10) -> nn.Module:
    """Build ResNet18 with a 3 × 3 stem and no pooling after it, as in the authors' code; 11 million parameters."""
    model: nn.Module = import_optional("torchvision.models", "models").resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def vgg16(num_classes: int = 10) -> nn.Module:
    """Build VGG16 with batch normalization, as in the authors' code; 15 million parameters.

    At 32 × 32 pixels one position is left after the last pooling. So one dense layer is the head, instead of the
    ImageNet classifier, whose two wide layers hold nine tenths of its parameters.
    """
    model: nn.Module = import_optional("torchvision.models", "models").vgg16_bn(num_classes=num_classes)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, num_classes)
    return model


def vit(num_classes: int = 10) -> nn.Module:
    """Build the paper's vision transformer: patches of 4 pixels, 8 blocks of width 512, 8 heads, MLP of 1,024."""
    vision_transformer = import_optional("timm.models.vision_transformer", "models").VisionTransformer
    model: nn.Module = vision_transformer(
        img_size=32, patch_size=4, embed_dim=512, depth=8, num_heads=8, mlp_ratio=2.0, num_classes=num_classes
    )
    return model
