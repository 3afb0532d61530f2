import pytest
import torch
from torch import nn

from resque.errors import ModelError
from resque.indices.compute_profile import profile
from resque.models.heads import replace_head, widen_head
from resque.models.layers import dense_names, head, head_name, representation_layer

TORCHVISION = {
    "resnet18": ("layer4.1.conv2", "fc"),
    "vgg16_bn": ("features.40", "classifier.6"),
    "squeezenet1_1": ("features.12.expand3x3", "classifier.1"),
    "densenet121": ("features.denseblock4.denselayer16.conv2", "classifier"),
    "mobilenet_v3_small": ("features.12.0", "classifier.3"),
    "efficientnet_b0": ("features.8.0", "classifier.1"),
    "convnext_tiny": ("features.7.2.block.0", "classifier.2"),
    "googlenet": ("inception5b.branch4.1.conv", "fc"),
    "vit_b_16": ("encoder.layers.encoder_layer_11.mlp.3", "heads.head"),
    "swin_t": ("features.7.1.mlp.3", "head"),
    "maxvit_t": ("blocks.3.layers.1.layers.grid_attention.mlp_layer.3", "classifier.5"),
}
TIMM = {
    "resnet18": ("layer4.1.conv2", "fc"),
    "resnet50_clip": ("stages.3.2.conv3_1x1.conv", "head.proj"),
    "vgg11": ("features.18", "head.fc"),
    "efficientnet_b0": ("conv_head", "classifier"),
    "vit_tiny_patch16_224": ("blocks.11.mlp.fc2", "head"),
    "swin_tiny_patch4_window7_224": ("layers.3.blocks.1.mlp.fc2", "head.fc"),
    "mixer_s32_224": ("blocks.7.mlp_channels.fc2", "head"),
    "maxvit_tiny_rw_224": ("stages.3.blocks.1.attn_grid.mlp.fc2", "head.fc"),
    "mobilevit_xxs": ("stages.4.1.transformer.2.mlp.fc2", "head.fc"),
    "cait_xxs24_224": ("blocks.23.mlp.fc2", "head"),
    "twins_pcpvt_small": ("blocks.3.2.mlp.fc2", "head"),
}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "num_labels": 3}
TEXT = {
    "Bert": ({}, "bert.encoder.layer.1.output.dense"),
    "Roberta": ({}, "roberta.encoder.layer.1.output.dense"),
    "DistilBert": (
        {"dim": 16, "n_layers": 2, "n_heads": 2, "hidden_dim": 32},
        "distilbert.transformer.layer.1.ffn.lin2",
    ),
    "Albert": ({"embedding_size": 8}, "albert.encoder.albert_layer_groups.0.albert_layers.0.ffn_output"),
    "Electra": ({}, "electra.encoder.layer.1.output.dense"),
    "GPT2": ({"n_embd": 16, "n_layer": 2, "n_head": 2, "pad_token_id": 0}, "transformer.h.1.mlp.c_proj"),
    "Qwen2": ({"num_key_value_heads": 2, "pad_token_id": 0}, "model.layers.1.mlp.down_proj"),
}
IMAGE = {
    "ViT": ({"image_size": 16, "patch_size": 8}, "vit."),
    "ConvNext": ({"hidden_sizes": [8, 8, 8, 8], "depths": [1, 1, 1, 2]}, "convnext.encoder.stages."),
    "ResNet": ({"embedding_size": 8, "hidden_sizes": [8, 8, 8, 8]}, "resnet.encoder.stages.3."),
}


@pytest.mark.parametrize("name", TORCHVISION)
def test_layer_and_head_of_torchvision_families(name):
    models = pytest.importorskip("torchvision.models")
    with torch.device("meta"):
        model = models.get_model(name, weights=None, **({"init_weights": False} if name == "googlenet" else {}))
    assert (representation_layer(model), head_name(model)) == TORCHVISION[name]


@pytest.mark.parametrize("name", TIMM)
def test_layer_and_head_of_timm_families(name):
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        model = timm.create_model(name, pretrained=False)
    assert (representation_layer(model), head_name(model)) == TIMM[name]


@pytest.mark.parametrize("name", TEXT)
def test_hugging_face_text_families_have_a_layer_and_a_profile(name):
    transformers = pytest.importorskip("transformers")
    more, layer = TEXT[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(vocab_size=50, **{**SMALL, **more})
    model = getattr(transformers, f"{name}ForSequenceClassification")(config)
    assert representation_layer(model) == layer
    batch = {"input_ids": torch.randint(1, 50, (6, 9)), "attention_mask": torch.ones(6, 9, dtype=torch.long)}
    result = profile(model, [{**batch, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}], reduction="token-mean")
    assert (result.n, result.width, result.origin.layer) == (6, 16, layer)
    by_default = profile(model, [{**batch, "labels": torch.tensor([0, 1, 2, 0, 1, 2])}])
    assert by_default.origin == result.origin
    assert all((by_default.sums[label] == result.sums[label]).all() for label in (0, 1, 2))


@pytest.mark.parametrize("name", IMAGE)
def test_hugging_face_image_families_have_a_layer_and_a_profile(name):
    transformers = pytest.importorskip("transformers")
    more, layer = IMAGE[name]
    config = getattr(transformers, f"{name}Config")(**{**SMALL, **more})
    model = getattr(transformers, f"{name}ForImageClassification")(config)
    assert representation_layer(model).startswith(layer)
    size = more.get("image_size", 64)
    result = profile(model, [{"pixel_values": torch.rand(4, 3, size, size), "labels": torch.tensor([0, 1, 0, 1])}])
    assert result.n == 4


def test_token_mean_ignores_padding():
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(vocab_size=50, **SMALL)
    model = transformers.BertForSequenceClassification(config)
    tokens, labels = torch.randint(1, 50, (6, 5)), torch.tensor([0, 1, 2, 0, 1, 2])
    padded = nn.functional.pad(tokens, (0, 4))
    short = {"input_ids": tokens, "attention_mask": torch.ones(6, 5, dtype=torch.long), "labels": labels}
    long = {"input_ids": padded, "attention_mask": (padded > 0).long(), "labels": labels}
    one, other = (profile(model, [batch], reduction="token-mean") for batch in (short, long))
    for label in (0, 1, 2):
        assert one.sums[label] == pytest.approx(other.sums[label], abs=1e-5)


class Shared(nn.Module):
    """A dense layer that runs three times in a pass."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x):
        for _ in range(3):
            x = self.body(x).relu_()
        return self.head(x)


def test_the_last_output_of_a_shared_layer_counts():
    torch.manual_seed(0)
    model, x = Shared(), torch.rand(5, 4)
    with torch.no_grad():
        last = model.body(model.body(model.body(x).relu()).relu())
    result = profile(model, [(x, torch.zeros(5, dtype=torch.long))])
    assert result.sums[0] == pytest.approx(last.double().sum(0).numpy(), abs=1e-6)


def test_pytorchs_own_encoder_is_hooked_despite_its_fast_path():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Flatten(), nn.Linear(24, 3))
    assert representation_layer(model) == "0.layers.1.linear2"
    assert profile(model, [(torch.rand(4, 3, 8), torch.tensor([0, 1, 2, 0]))]).width == 24


def test_a_new_head_fits_and_a_wider_one_keeps_the_old_logits():
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    convolution = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    for model, x in ((dense, torch.rand(5, 4)), (convolution, torch.rand(5, 3, 6, 6))):
        before = model(x)
        widen_head(model, 5)
        assert model(x).shape == (5, 5)
        assert torch.allclose(model(x)[:, :3], before, atol=1e-6)
        with pytest.raises(ModelError, match="has 5 outputs already; expected more than that, not 5"):
            widen_head(model, 5)
        replace_head(model, 2)
        assert model(x).shape == (5, 2)
        assert isinstance(head(model), nn.Linear | nn.Conv2d)


def test_a_model_without_head_or_representation_is_refused():
    with pytest.raises(ModelError, match="no dense layer and no convolution"):
        head_name(nn.Sequential(nn.ReLU()))
    with pytest.raises(ModelError, match="neither a convolution, nor an encoder block, nor two dense layers"):
        representation_layer(nn.Linear(3, 2))


class Tied(nn.Module):
    """One head under two names."""

    def __init__(self):
        super().__init__()
        self.body, self.fc = nn.Linear(4, 8), nn.Linear(8, 3)
        self.classifier = self.fc

    def forward(self, x):
        return self.classifier(self.body(x).relu())


def test_a_head_with_two_names_is_replaced_under_both():
    model = Tied()
    widen_head(model, 5)
    assert model.fc is model.classifier
    assert model(torch.rand(2, 4)).shape == (2, 5)


def test_a_new_convolution_head_keeps_every_setting():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, 1, 2, 2, 2, padding_mode="reflect"))
    replace_head(model, 6)
    new = model[-1]
    assert (new.dilation, new.groups, new.padding_mode, new.padding) == ((2, 2), 2, "reflect", (2, 2))
    with pytest.raises(ModelError, match="5 outputs"):
        replace_head(model, 5)  # two groups


class Cosine(nn.Linear):
    def forward(self, x):
        return nn.functional.normalize(x, dim=1) @ nn.functional.normalize(self.weight, dim=1).T


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(4, 3), "a single layer"),
        (nn.Sequential(nn.Linear(4, 4), Cosine(4, 3)), "Cosine"),
        (nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(4, 3))), "parametri"),
        (nn.Sequential(nn.utils.parametrizations.spectral_norm(nn.Linear(4, 3))), "parametri"),
    ],
)
def test_a_head_that_is_not_plain_is_refused(model, reason):
    for change in (replace_head, widen_head):
        with pytest.raises(ModelError, match=reason):
            change(model, 5)


def test_a_head_without_outputs_is_refused():
    with pytest.raises(ModelError, match="0 outputs"):
        replace_head(nn.Sequential(nn.Linear(4, 3)), 0)


def test_dense_layers_are_named_without_auxiliary_ones():
    model = nn.Module()
    model.body, model.aux_head, model.head = nn.Linear(4, 4), nn.Linear(4, 3), nn.Linear(4, 3)
    assert dense_names(model) == ["body", "head"]
