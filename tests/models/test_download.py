"""Nothing is fetched from a hub unless it is asked for; what is missing is refused at once."""

import socket
import sys
from unittest.mock import Mock

import pandas as pd
import pytest

import resque
from resque.data.readers.source import read_source
from resque.errors import DataError, ModelError, ResqueError
from resque.models.loading import load_model
from resque.models.networks import small_cnn
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


TEXTS = pd.DataFrame({"text": ["good", "bad", "good again"], "label": [1, 0, 1]})
HUB_DATA = ["hf:owner/data", "hf:./data:test", "hf:data@train+blur:3", "digits@60~hf:owner/data", "hf:folder/a-file"]


@pytest.mark.parametrize("spec", HUB_DATA)
@pytest.mark.parametrize("read", [resque.load_data, InputLoader("resque.networks:small_cnn").data])
def test_data_of_a_hub_are_read_only_with_download(asked, folder, monkeypatch, spec, read):
    (folder / "folder").mkdir()
    (folder / "folder" / "a-file").touch()
    with pytest.raises(DataError, match=r"no such folder here.*--download"):
        read(spec)
    asked.assert_not_called()
    fetched = Mock(side_effect=OSError("asked the hub"))
    monkeypatch.setattr("datasets.load_dataset", fetched)
    for loaded in (
        lambda: resque.load_data(spec, download=True),
        lambda: InputLoader("resque.networks:small_cnn", ModelOptions(download=True)).data(spec),
    ):
        with pytest.raises(DataError, match="asked the hub"):
            loaded()


def test_data_that_were_fetched_before_need_no_download(asked, folder, monkeypatch):
    """A copy of a set of the hub, as the library keeps it; what a folder without one has is read without it."""
    datasets = pytest.importorskip("datasets")
    (folder / "name").mkdir()
    TEXTS.to_parquet(folder / "name" / "train.parquet")
    datasets.load_dataset_builder(str(folder / "name"), cache_dir=str(folder / "made")).download_and_prepare()
    (made,) = (folder / "made" / "name" / "default" / "0.0.0").glob("*/")
    kept = folder / "datasets" / "owner___name" / "default" / "0.0.0"
    kept.mkdir(parents=True)
    made.rename(kept / "abc")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(folder / "datasets"))
    (folder / "name").rename(folder / "elsewhere")
    for name in ("owner/name", "owner/name:train"):
        assert read_source(f"hf:{name}").labels == [1, 0, 1]
    for other in ("owner/other", "name", "csv", "parquet"):
        with pytest.raises(DataError, match="no such folder here, nor fetched before"):
            read_source(f"hf:{other}")
    asked.assert_not_called()


@pytest.mark.parametrize("form", ["parquet", "folder", "saved"])
def test_data_that_are_here_ask_no_network(asked, folder, form):
    """The library would tell its makers that a Parquet file is read."""
    datasets = pytest.importorskip("datasets")
    (folder / "here").mkdir()
    TEXTS.to_parquet(folder / "here" / "train.parquet")
    if form == "saved":
        datasets.Dataset.from_pandas(TEXTS).save_to_disk(folder / "saved")
    spec = {"parquet": "parquet:here/train.parquet", "folder": "hf:here", "saved": "hf:saved"}[form]
    assert read_source(spec).labels == [1, 0, 1]
    asked.assert_not_called()


@pytest.mark.parametrize("path", ["https://example.org/a.png", "hf://datasets/o/n/a.png", "s3://bucket/a.png"])
def test_images_elsewhere_are_fetched_only_with_download(asked, folder, path):
    pytest.importorskip("datasets")
    pd.DataFrame({"image": [{"bytes": None, "path": path}] * 2, "label": [0, 1]}).to_parquet(folder / "a.parquet")
    with pytest.raises(DataError, match=f"row 0.*{path}.*--download"):
        resque.load_data("parquet:a.parquet")
    asked.assert_not_called()


def test_names_of_the_classes_of_a_hub_model_are_read_with_download(asked, monkeypatch):
    built = Mock(return_value=small_cnn())
    monkeypatch.setattr("resque.workflows.inputs.build_model", built)
    for download in (False, True):
        assert InputLoader("hf:owner/name", ModelOptions(download=download)).class_names == ()
        assert built.call_args.kwargs["download"] is download


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
