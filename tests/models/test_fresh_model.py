"""Fresh random weights of a given architecture."""

import pytest
from torch import nn

from resque.errors import ModelError
from resque.models.loading import fresh_model, load_model
from resque.models.weights import fingerprint


def test_fresh_weights_are_random_with_the_same_architecture(tmp_path):
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n"
        "def build(num_classes=3): return nn.Sequential(nn.Flatten(), nn.Linear(4, num_classes))\n"
        "def fixed():\n    model = build()\n    for p in model.parameters(): nn.init.ones_(p)\n    return model\n"
        "def other(): return nn.Sequential(nn.Flatten(), nn.Linear(4, 8), nn.Linear(8, 3))\n"
    )
    like = nn.Sequential(nn.Flatten(), nn.Linear(4, 5))
    models = [fresh_model(f"{tmp_path}/net.py:build", like, seed) for seed in (0, 0, 1)]
    assert models[0][1].out_features == 5
    assert fingerprint(models[0]) == fingerprint(models[1]) != fingerprint(models[2])
    with pytest.raises(ModelError, match="the same weights for every seed"):
        fresh_model(f"{tmp_path}/net.py:fixed", like)
    with pytest.raises(ModelError, match="another architecture"):
        fresh_model(f"{tmp_path}/net.py:other", like)


def test_fresh_weights_of_a_transformers_folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    config.num_labels = 3
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    trained = load_model(f"hf:{tmp_path / 'vit'}", classes=4)
    models = [fresh_model(f"hf:{tmp_path / 'vit'}", trained, seed) for seed in (0, 1)]
    assert len({fingerprint(model) for model in (trained, *models)}) == 3
    assert models[0].config.num_labels == 4
