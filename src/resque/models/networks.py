"""The paper's networks for small images, on torchvision's and timm's blocks, and the demo's classifier.

Functions that a model specification can name: ``resque.networks:resnet18``. Those of the paper take the number of
classes; their departures from the libraries' models are the ones that images of 32 × 32 pixels need.
"""

from torch import nn

from resque._optional import import_optional


def small_cnn() -> nn.Module:
    """The demo's classifier: three convolutions, 24,000 parameters, gray images, ten classes.

    Example:
        >>> import torch
        >>> small_cnn()(torch.zeros(2, 1, 16, 16)).shape
        torch.Size([2, 10])
    """

    def block(inputs: int, outputs: int, stride: int = 1) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]

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
    """ResNet18 with a stem of 3 × 3 and no pooling after it, as the authors' code has it; 11 million parameters."""
    model: nn.Module = import_optional("torchvision.models", "models").resnet18(num_classes=num_classes)
    model.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model


def vgg16(num_classes: int = 10) -> nn.Module:
    """VGG16 with batch normalisation, as the authors' code has it; 15 million parameters.

    At 32 × 32 pixels one position is left after the last pooling, so the two wide layers of the ImageNet classifier,
    nine tenths of its parameters, have nothing to do; one dense layer is the head.
    """
    model: nn.Module = import_optional("torchvision.models", "models").vgg16_bn(num_classes=num_classes)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(512, num_classes)
    return model


def vit(num_classes: int = 10) -> nn.Module:
    """The paper's vision transformer for 32 × 32 pixels: patches of 4, 8 blocks of width 512, 8 heads, MLP 1024."""
    form = import_optional("timm.models.vision_transformer", "models").VisionTransformer
    model: nn.Module = form(
        img_size=32, patch_size=4, embed_dim=512, depth=8, num_heads=8, mlp_ratio=2.0, num_classes=num_classes
    )
    return model
