"""Small networks of the paper's three families, most for gray images, from the blocks of timm and torchvision.

One more has no normalization. They have 70,000 to 150,000 parameters, few enough for two processor cores.
"""

from timm.models.resnet import BasicBlock, ResNet
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torchvision.models.vgg import VGG, make_layers


def small_resnet(num_classes: int = 10, in_chans: int = 1) -> nn.Module:
    """Build a ResNet of four blocks (16, 32, 64, 64 channels) after a stem of three convolutions; 150,000 parameters.

    Like the paper's ResNet18 it has no pooling after the stem; its last feature maps have 4 × 4 positions.
    """
    model = ResNet(
        BasicBlock,
        (1, 1, 2),
        num_classes=num_classes,
        in_chans=in_chans,
        channels=(16, 32, 64),
        stem_type="deep",
        stem_width=8,
    )
    model.maxpool = model.layer4 = nn.Identity()
    return model


def color_resnet(num_classes: int = 22) -> nn.Module:
    """Build :func:`small_resnet` for color images."""
    return small_resnet(num_classes, in_chans=3)


def small_vgg(num_classes: int = 10) -> nn.Module:
    """Build a VGG of six convolutions with batch normalization, three poolings, one dense layer; 72,000 parameters."""
    features = make_layers([16, 16, "M", 32, 32, "M", 64, 64, "M"], batch_norm=True)
    features[0] = nn.Conv2d(1, 16, 3, padding=1)
    model = VGG(features, num_classes=num_classes)
    model.avgpool = nn.AdaptiveAvgPool2d(1)
    model.classifier = nn.Linear(64, num_classes)
    return model


def plain_cnn(num_classes: int = 10) -> nn.Module:
    """Build six convolutions without any normalization, two poolings, one dense layer; 126,000 parameters.

    A step of it costs about what one of :func:`small_resnet` costs. He's initialization stands in for normalization.
    """
    layers: list[nn.Module] = []
    for inputs, outputs, stride in ((1, 16, 2), (16, 32, 1), (32, 32, 1), (32, 64, 1), (64, 64, 1), (64, 96, 1)):
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        nn.init.zeros_(convolution.bias)
        layers += [convolution, nn.ReLU(), *([nn.MaxPool2d(2)] if len(layers) in (4, 9) else [])]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(96, num_classes))


def small_vit(num_classes: int = 10) -> nn.Module:
    """Build a ViT of four blocks of width 64 with four heads, patches of 4 in 16 × 16 pixels; 140,000 parameters."""
    return VisionTransformer(
        img_size=16,
        patch_size=4,
        in_chans=1,
        embed_dim=64,
        depth=4,
        num_heads=4,
        mlp_ratio=2.0,
        num_classes=num_classes,
    )
