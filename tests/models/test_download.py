"""Nothing is fetched from a hub unless it is asked for; what is missing is refused at once."""

import socket
import sys
from unittest.mock import Mock

import pytest

import resque
from resque.errors import DataError, ModelError, ResqueError
from resque.models.loading import load_model
from resque.models.registry import preprocessing_for
from resque.workflows.inputs import InputLoader, ModelOptions
from resque.workflows.project import read_project

constants = pytest.importorskip("huggingface_hub.constants")


@pytest.fixture
def asked(folder, monkeypatch):
    """The requests to a network, each of which fails; nothing was fetched before."""
    asked = Mock(side_effect=OSError("no network"))
    monkeypatch.setattr(socket, "getaddrinfo", asked)
    monkeypatch.setattr(socket.socket, "connect", asked)
    monkeypatch.setattr("torch.hub.get_dir", lambda: str(folder / "torch"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        monkeypatch.setattr(constants, name, str(folder / "hub"), raising=False)
    return asked


MISTYPED = [
    "./modl",
    "/no/such",
    "../x",
    "~/x",
    "a/b/c",
    "a b",
    "owner/",
    "a" * 300,
    "mod\x1bel",
    "models/-x",
    "ü/x",
    "x:y",
]
NAMES = ["owner/name", "bert-base-uncased", "models/net", "net"]


@pytest.mark.parametrize("name", [*MISTYPED, *NAMES], ids=ascii)
@pytest.mark.parametrize("use", [load_model, preprocessing_for])
def test_what_is_not_here_is_refused_at_once(asked, monkeypatch, use, name):
    monkeypatch.setitem(sys.modules, "transformers", None)  # it takes seconds to import
    with pytest.raises(ModelError, match="no such folder.*correct the path") as refused:
        use(f"hf:{name}")
    assert ("--download" in str(refused.value)) == (name in NAMES)
    asked.assert_not_called()


@pytest.mark.parametrize("name", MISTYPED, ids=ascii)
def test_a_mistyped_path_is_refused_with_download_too(asked, name):
    with pytest.raises(ModelError, match="OWNER/NAME"):
        load_model(f"hf:{name}", download=True)
    asked.assert_not_called()


@pytest.mark.parametrize("spec", ["timm:resnet10t.c3_in1k", "timm:test_vit.r160_in1k"])
def test_weights_of_a_tag_are_fetched_only_with_download(asked, monkeypatch, spec):
    timm = pytest.importorskip("timm")
    with pytest.raises(ModelError, match="add --download"):
        load_model(spec)
    asked.assert_not_called()
    assert constants.HF_HUB_OFFLINE is False

    def fetch(*_, **__):
        raise OSError("offline" if constants.HF_HUB_OFFLINE else "asked the hub")

    monkeypatch.setattr(timm.models._builder, "load_state_dict_from_hf", fetch)
    with pytest.raises(ModelError, match="cannot be built: OSError: asked the hub"):
        load_model(spec, download=True)


def test_weights_by_address_are_fetched_only_with_download(asked, monkeypatch):
    timm = pytest.importorskip("timm")
    source = ("url", "https://example.org/weights.pth")
    monkeypatch.setattr(timm.models._builder, "_resolve_pretrained_source", lambda config: source)
    with pytest.raises(ModelError, match="add --download"):
        load_model("timm:test_vit.r160_in1k")
    asked.assert_not_called()


@pytest.mark.parametrize("spec", ["timm:resnet10t.nope", "timm:nope.a1"])
def test_an_unknown_tag_is_one_line(asked, spec):
    pytest.importorskip("timm")
    with pytest.raises(ModelError) as refused:
        load_model(spec)
    assert "--download" not in str(refused.value)
    if spec.endswith("nope"):
        with pytest.raises(ModelError, match="nope"):
            preprocessing_for(spec)


def test_what_was_fetched_before_needs_no_download(asked, folder):
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, image_size=8, patch_size=4
    )
    snapshot = folder / "hub" / "models--owner--vit" / "snapshots" / "abc"
    transformers.ViTForImageClassification(config).save_pretrained(snapshot)
    (snapshot / "preprocessor_config.json").write_text('{"image_processor_type": "ViTImageProcessor", "size": 8}')
    (folder / "hub" / "models--owner--vit" / "refs").mkdir()
    (folder / "hub" / "models--owner--vit" / "refs" / "main").write_text("abc")
    assert load_model("hf:owner/vit").config.hidden_size == 16
    assert preprocessing_for("hf:owner/vit").side == 8
    asked.assert_not_called()
    (snapshot / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="add --download"):
        load_model("hf:owner/vit")
    asked.assert_not_called()


@pytest.mark.parametrize("spec", ["hf:owner/data", "hf:./data:test", "hf:data@train+blur:3", "digits@60~hf:owner/data"])
def test_data_of_a_hub_are_read_only_with_download(asked, monkeypatch, spec):
    loader = InputLoader("resque.networks:small_cnn")
    with pytest.raises(DataError, match=r"no such folder here.*--download"):
        loader.data(spec)
    asked.assert_not_called()
    monkeypatch.setattr("resque.workflows.inputs.load_data", Mock(side_effect=DataError("asked the hub")))
    with pytest.raises(DataError, match="asked the hub"):
        InputLoader("resque.networks:small_cnn", ModelOptions(download=True)).data(spec)


@pytest.mark.parametrize("given", ["option", "environment", "project", "nothing"])
@pytest.mark.parametrize(
    "command",
    [
        "profile --data digits --out p.safetensors", "dist --original digits --shifted digits", "task --data digits",
        "forecast --shifted digits --test digits --target-accuracy 0.9", "calibrate --data digits",
        "retrain --train digits --test digits --target-accuracy 0.9", "init --test digits",
    ],
)  # fmt: skip
def test_every_command_that_builds_a_model_takes_download(cli, asked, monkeypatch, command, given):
    if command.startswith("init") and given == "project":
        pytest.skip("it writes the project file")
    if given == "environment":
        monkeypatch.setenv("RESQUE_DOWNLOAD", "1")
    if given == "project":
        (folder := resque.workflows.project.FILE).write_text("[model]\ndownload = true\n")
        assert read_project(folder).options("dist") == {"download": True}
    fetched = Mock(side_effect=ModelError("asked the hub"))
    monkeypatch.setattr("resque.models.registry._transformers_preprocessing", fetched)
    monkeypatch.setattr("resque.models.registry._LIBRARIES", {"hf": (fetched, fetched)})
    code, _, err = cli(f"{command} --model hf:owner/name" + " --download" * (given == "option"))
    assert code == 1
    assert ("asked the hub" in err) == (given != "nothing")
    assert ("add --download" in err) == (given == "nothing")


@pytest.mark.parametrize("value", ['"yes"', "1", "[]"])
def test_the_key_of_the_project_file_is_true_or_false(folder, value):
    (folder / "resque.toml").write_text(f"[model]\ndownload = {value}\n")
    with pytest.raises(ResqueError, match="expected true or false"):
        read_project(folder / "resque.toml")
