"""Models of libraries: built by name with the right outputs, and their preprocessing."""

import json

import numpy as np
import pytest
import torch

from resque.data.loading import load_data
from resque.data.preprocessing import ImagePreprocessing, Tokenization
from resque.energy.meters import ClockMeter
from resque.errors import DataError, ModelError, ResqueWarning
from resque.indices.task_features import TaskIndexSettings, task_index
from resque.models.inference import forward
from resque.models.layers import head
from resque.models.loading import load_model
from resque.models.registry import preprocessing_for
from resque.models.weights import save_weights
from resque.training.new_task import NEW_TASK
from resque.training.recipe import RECIPES
from resque.workflows.inputs import InputLoader, ModelOptions

SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "very", "film"]


@pytest.mark.parametrize(
    ("spec", "side", "fixed"),
    [
        ("timm:resnet18", 224, False),
        ("timm:vit_tiny_patch16_224", 224, True),
        ("torchvision:resnet18", 224, False),
        ("torchvision:vit_b_16", 224, True),
    ],
)
def test_preprocessing_of_library_models(spec, side, fixed):
    pytest.importorskip(spec.partition(":")[0])
    wanted = preprocessing_for(spec)
    assert (wanted.side, wanted.fixed, wanted.channels, len(wanted.mean)) == (side, fixed, 3, 3)


@pytest.mark.parametrize("spec", ["timm:resnet10t", "torchvision:squeezenet1_1", "resque.networks:resnet18"])
def test_library_models_take_gray_images(spec):
    for library in ("timm", "torchvision"):
        pytest.importorskip(library)
    data = load_data("digits@32px@4", preprocessing=preprocessing_for(spec))
    data = data if preprocessing_for(spec).channels else data.with_channels(3)
    inputs, _ = next(data.batches(2))
    with torch.no_grad():
        assert forward(load_model(spec, classes=7), inputs).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "vgg16", "vit"])
def test_the_papers_networks_take_small_images(name):
    for library in ("timm", "torchvision"):
        pytest.importorskip(library)
    model = load_model(f"resque.networks:{name}", classes=6)
    with torch.no_grad():
        assert model(torch.rand(2, 3, 32, 32)).shape == (2, 6)


def test_weights_determine_the_number_of_outputs(folder):
    pytest.importorskip("timm")
    model = load_model("timm:resnet10t", classes=3, seed=1)
    save_weights(model, folder / "w.safetensors")
    same = load_model("timm:resnet10t", folder / "w.safetensors")
    assert torch.equal(head(same).weight, head(model).weight)
    with pytest.raises(ModelError, match="have 3 outputs, and --classes says"):
        load_model("timm:resnet10t", folder / "w.safetensors", classes=4)


def test_unknown_names_are_refused_with_suggestions():
    for library in ("timm", "torchvision", "transformers"):
        pytest.importorskip(library)
    for spec, message in {
        "timm:resnet19": "timm has no model 'resnet19'; similar ones: .*resnet18",
        "torchvision:resnet19": "torchvision has no classifier 'resnet19'; similar ones: .*resnet18",
        "torchvision:fasterrcnn_resnet50_fpn": "no classifier",
        "hf:./nowhere": "no such folder",
    }.items():
        with pytest.raises(ModelError, match=message):
            load_model(spec)


@pytest.fixture
def text_model(folder):
    """A folder as transformers leaves it: a small classifier of texts and its tokenizer."""
    transformers = pytest.importorskip("transformers")
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    config = transformers.BertConfig(**SMALL, vocab_size=len(WORDS), num_labels=2, max_position_embeddings=12)
    torch.manual_seed(0)
    transformers.BertForSequenceClassification(config).save_pretrained(folder / "bert")
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder / "bert")
    return "hf:bert"


@pytest.fixture
def image_model(folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(**SMALL, image_size=16, patch_size=8, num_labels=10)
    torch.manual_seed(0)
    transformers.ViTForImageClassification(config).save_pretrained(folder / "vit")
    wanted = {"image_processor_type": "ViTImageProcessor", "size": {"height": 16, "width": 16}}
    shown = {"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.2, 0.2]}
    (folder / "vit" / "preprocessor_config.json").write_text(json.dumps(wanted | shown))
    return "hf:vit"


def test_a_saved_image_classifier_and_its_preprocessing(image_model):
    wanted = preprocessing_for(image_model)
    assert wanted == ImagePreprocessing(16, True, 3, (0.4, 0.5, 0.6), (0.2, 0.2, 0.2))
    inputs, _ = next(load_data("digits", preprocessing=wanted).batches(3))
    assert inputs.shape == (3, 3, 16, 16)
    with torch.no_grad():
        assert forward(load_model(image_model), inputs).shape == (3, 10)
        assert forward(load_model(image_model, classes=4), inputs).shape == (3, 4)


def texts(folder):
    datasets = pytest.importorskip("datasets")
    rows = {"text": ["good film", "very bad film", "very very good"] * 4, "label": [1, 0, 1] * 4}
    datasets.Dataset.from_dict(rows).to_parquet(folder / "texts.parquet")
    return "parquet:texts.parquet"


def test_a_saved_text_classifier_and_its_tokenizer(folder, text_model):
    wanted = preprocessing_for(text_model)
    assert isinstance(wanted, Tokenization)
    assert str(wanted) == "tokens of bert, at most 12"
    data = load_data(texts(folder), preprocessing=wanted)
    inputs, _ = next(data.batches(5))
    assert inputs["input_ids"].shape == (5, 5)
    assert inputs["attention_mask"][0].tolist() == [1, 1, 1, 1, 0]
    with torch.no_grad():
        assert forward(load_model(text_model), inputs).shape == (5, 2)
    with pytest.raises(DataError, match="holds texts, which a text classifier reads"):
        load_data("parquet:texts.parquet")
    with pytest.raises(DataError, match="holds images, and the model reads texts"):
        load_data("digits", preprocessing=wanted)


@pytest.mark.parametrize("lloyd", ["", " --no-lloyd"])
@pytest.mark.parametrize(
    ("given", "expected"),
    [("", "token-mean"), (" --layer penultimate", "flatten"), (" --reduction flatten", "flatten")],
)
def test_a_new_task_of_texts_is_reduced_by_the_mean_over_tokens(cli, folder, text_model, given, expected, lloyd):
    data = texts(folder)
    code, out, err = cli(f"task --model {text_model} --data {data} --warmup-steps 1 --json{lloyd}{given}")
    assert code == 0, err
    found = json.loads(out)
    named = cli(f"task --model {text_model} --data {data} --warmup-steps 1 --json --reduction {expected}{lloyd}{given}")
    assert found["reduction"] == expected
    assert found["value"] == json.loads(named[1])["value"]


@pytest.mark.parametrize(("reduction", "expected"), [(None, "token-mean"), ("flatten", "flatten")])
def test_features_of_a_new_task_of_texts_are_reduced_alike(folder, text_model, reduction, expected):
    """`resque forecast --task` and `resque retrain --new-head` take them."""
    loader = InputLoader(text_model, change=NEW_TASK)
    job = loader.job(texts(folder), texts(folder), 0.9, RECIPES["train-adam"])
    features, _ = loader.new_task_features(loader.network(), job, False, None, reduction, ClockMeter())
    assert features.reduction == expected


@pytest.mark.parametrize("lloyd", [True, False])
def test_a_new_task_of_images_is_flattened(lloyd, image_model):
    loader = InputLoader(image_model, change=NEW_TASK)
    settings = TaskIndexSettings(warmup_steps=1, lloyd=lloyd)
    assert task_index(loader.network(), loader.data("digits@60"), settings, meter=ClockMeter()).reduction == "flatten"


def test_pickled_weights_are_refused(folder, image_model):
    (folder / "vit" / "model.safetensors").unlink()
    torch.save({}, folder / "vit" / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be built"):
        load_model(image_model)


def test_preprocessing_is_described_and_applied():
    images = torch.rand(2, 3, 8, 8)
    one, other = ImagePreprocessing(), ImagePreprocessing(mean=(0.5,) * 3, std=(0.25,) * 3)
    assert str(one) != str(other)
    assert torch.allclose(other(images), (images - 0.5) / 0.25)
    assert np.isclose(
        float(ImagePreprocessing(channels=1)(images)[0, 0, 0, 0]),
        float(images[0, :, 0, 0] @ torch.tensor([0.299, 0.587, 0.114])),
    )


def test_unknown_library_models_get_the_preprocessing_of_imagenet():
    for library in ("timm", "torchvision"):
        pytest.importorskip(library)
    assert preprocessing_for("timm:nothing") == ImagePreprocessing(None, False, 3, *IMAGENET)
    assert preprocessing_for("torchvision:nothing") == ImagePreprocessing(224, False, 3, *IMAGENET)


def test_googlenet_is_built_without_a_warning():
    pytest.importorskip("torchvision")
    with torch.device("meta"):
        assert head(load_model("torchvision:googlenet", classes=4)).out_features == 4


def test_a_folder_that_does_not_describe_its_images_is_refused(folder, image_model):
    (folder / "vit" / "preprocessor_config.json").unlink()
    with pytest.raises(ModelError, match="hf:vit does not describe its inputs"):
        preprocessing_for(image_model)


def test_a_folder_with_a_model_of_another_task_is_refused(folder):
    pytest.importorskip("transformers")
    (folder / "speech").mkdir()
    (folder / "speech" / "config.json").write_text('{"model_type": "whisper"}')
    with pytest.raises(ModelError, match="a whisper model is neither an image nor a text classifier"):
        load_model("hf:speech")


def test_words_follow_the_names_that_transformers_saved(folder, image_model, text_model):
    for model, names in ((image_model, [f"digit {9 - i}" for i in range(10)]), (text_model, ["good", "bad"])):
        file = folder / model.removeprefix("hf:") / "config.json"
        config = json.loads(file.read_text())
        file.write_text(json.dumps(config | {"id2label": dict(enumerate(names)), "label2id": {}}))
    pixels = np.zeros((3, 16, 16), np.uint8)
    data = InputLoader(image_model).data((pixels, ["digit 8", "digit 0", "digit 8"]))
    assert data.labels.tolist() == [1, 9, 1]
    reviews = ["good film", "very bad film"]
    assert InputLoader(text_model).data((reviews, ["good", "bad"])).labels.tolist() == [0, 1]
    with pytest.raises(DataError, match="no class 'awful', or several; its id2label holds 'good', 'bad'"):
        InputLoader(text_model).data((reviews, ["good", "awful"]))
    with pytest.warns(ResqueWarning, match="sorted order"):  # a head of another size has other classes
        InputLoader(text_model, ModelOptions(classes=3)).data((reviews, ["good", "awful"]))
