"""Build what a model specification names, and tell what preprocessing its inputs need.

``timm:NAME`` and ``torchvision:NAME`` are architectures with random weights. A timm name with a tag, as in
``timm:resnet18.a1_in1k``, has the weights of the tag. ``hf:PATH_OR_ID`` is a classifier that transformers saved, in a
folder or else on the hub. What is not here is downloaded only on request. Anything else names a function of the user's.
"""

import difflib
import inspect
import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from types import ModuleType
from typing import Any

import torch
import torch.hub
from torch import nn
from torch.nn.parameter import is_lazy
from torch.overrides import TorchFunctionMode

from resque._callables import describe_failure, load_callable
from resque._optional import import_optional
from resque._sizes import MOST_CLASSES, is_number_of_classes
from resque.data.preprocessing import ImagePreprocessing, Preprocessing, Tokenization
from resque.errors import ModelError, ResqueError
from resque.models.randomness import isolated_random_state

__all__ = ["build_model", "has_random_weights", "preprocessing_for", "split_spec"]

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FIXED_SIZE = ("vit", "maxvit")
_SUGGESTIONS = 8
_MOST_TOKENS = 512
_MOST_HEAD_WEIGHTS = 50_000_000  # the classes of ImageNet-21k by 2,048 inputs have 45 million


def has_random_weights(spec: str | nn.Module) -> bool:
    """Return whether a specification names an architecture of a library with random weights.

    Example:
        >>> has_random_weights("timm:resnet18"), has_random_weights("timm:resnet18.a1_in1k")
        (True, False)
    """
    library, name = split_spec(spec)
    return library == "torchvision" or (library == "timm" and "." not in name)


def preprocessing_for(spec: str | nn.Module, download: bool = False) -> Preprocessing:
    """Return the preprocessing that a model of a library needs; other models take images as they are.

    Raises:
        ModelError: A folder of transformers does not describe its inputs, or a library is not installed.

    Example:
        >>> preprocessing_for("net.py:build")
        ImagePreprocessing(side=None, fixed=False, channels=None, mean=(), std=())
    """
    library, name = split_spec(spec)
    if not library:
        return ImagePreprocessing()
    with _hub(spec, download):
        return _LIBRARIES[library][1](name)


def build_model(
    spec: str, seed: int = 0, classes: int | None = None, trained: bool = True, download: bool = False
) -> nn.Module:
    """Build the model that a specification names; the global random state stays as it is.

    Args:
        spec: See the module's description.
        seed: Seed of random initial weights.
        classes: Number of outputs; None takes the specification's own. A callable gets it if it has a parameter
            ``num_classes``.
        trained: Whether a model of a library gets the weights that its name stands for; if not, all are random.
        download: Whether what the name stands for is fetched; if not, it must be here.

    Raises:
        ModelError: There is no such model (the message lists similar names), it cannot be built, or its library is
            not installed.

    Example:
        >>> build_model("resque.networks:small_cnn")[0]
        Conv2d(1, 16, kernel_size=(3, 3), stride=(2, 2), padding=(1, 1))
    """
    if classes is not None and not is_number_of_classes(classes):
        raise ModelError(f"classes={str(classes)[:40]}: expected a whole number from 1 to {MOST_CLASSES:,}")
    library, name = split_spec(spec)
    function = None if library else load_callable(spec)  # before the seed is set: an import may draw random numbers
    with isolated_random_state(torch.device("cpu"), seed), nullcontext() if classes is None else _SmallHead(classes):
        if function is None:
            with _hub(spec, download):
                return _build_from_library(library, name, classes, trained)
        return _build_from_callable(spec, function, classes)


class _SmallHead(TorchFunctionMode):
    """Refuses a head of too many weights for a number of outputs that was asked for, before it takes memory."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self._classes = classes

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.empty and args:
            shape = args[0] if isinstance(args[0], Sequence) else args
            if shape and shape[0] == self._classes and math.prod(shape) > _MOST_HEAD_WEIGHTS:
                width = math.prod(shape[1:])
                most = _MOST_HEAD_WEIGHTS // width
                raise ModelError(f"{self._classes:,} outputs of {width:,} inputs; expected at most {most:,} outputs")
        return func(*args, **(kwargs or {}))


@contextmanager
def _hub(spec: str | nn.Module, download: bool) -> Iterator[None]:
    """Let what a specification names be fetched on request alone; refuse what is neither here nor a name of the hub."""
    library, name = split_spec(spec)
    if library == "hf" and not os.path.isdir(name):  # before transformers is imported, which takes seconds
        _check_hub_name(name, download)
    if download or library not in ("hf", "timm"):
        yield
        return
    hub: Any = import_optional("huggingface_hub.constants", "models")
    kept = hub.HF_HUB_OFFLINE, torch.hub.download_url_to_file
    hub.HF_HUB_OFFLINE, torch.hub.download_url_to_file = True, _refuse_download
    try:
        yield
    except ModelError as error:
        if isinstance(error.__cause__, OSError) and not os.path.isdir(name):
            raise ModelError(f"{spec}: its files are not here; add --download to fetch them") from error
        raise
    finally:
        hub.HF_HUB_OFFLINE, torch.hub.download_url_to_file = kept


def _check_hub_name(name: str, download: bool) -> None:
    hub = import_optional("huggingface_hub", "models")
    try:
        is_here = isinstance(hub.try_to_load_from_cache(name, "config.json"), str)
    except ValueError as error:
        raise ModelError(f"hf:{name}: no such folder, and no name of the hub (OWNER/NAME); correct the path") from error
    if not (is_here or download):
        raise ModelError(
            f"hf:{name}: no such folder here, nor fetched before; correct the path, or add --download to fetch it from "
            "the hub"
        )


def _refuse_download(url: str, *arguments: Any, **options: Any) -> None:
    raise FileNotFoundError(f"{url} is not here")


def split_spec(spec: str | nn.Module) -> tuple[str, str]:
    """Return the library and the model's name in it; two empty strings for a user's own model.

    Example:
        >>> split_spec("timm:resnet18"), split_spec("net.py:build")
        (('timm', 'resnet18'), ('', ''))
    """
    library, _, name = spec.partition(":") if isinstance(spec, str) else ("", "", "")
    return (library, name) if name and library in _LIBRARIES else ("", "")


def _build_from_callable(spec: str, function: Callable[..., Any], classes: int | None) -> nn.Module:
    try:
        takes_classes = classes is not None and "num_classes" in inspect.signature(function).parameters
        model = function(num_classes=classes) if takes_classes else function()
    except (KeyboardInterrupt, ResqueError):
        raise
    except BaseException as error:  # a user's own code may raise anything
        raise ModelError(describe_failure(spec, function, error)) from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"{spec} returned {type(model).__name__}; expected a torch.nn.Module")
    if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
        raise ModelError(f"{spec} has lazy layers without a size: pass one batch through the model before returning it")
    return model


def _build_from_library(library: str, name: str, classes: int | None, trained: bool) -> nn.Module:
    try:
        return _LIBRARIES[library][0](name, classes, trained)
    except ResqueError:
        raise
    except Exception as error:  # each library raises errors of its own
        raise ModelError(f"{library}:{name} cannot be built: {type(error).__name__}: {_first_line(error)}") from error


def _build_timm(name: str, classes: int | None, trained: bool) -> nn.Module:
    timm = import_optional("timm", "models")
    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{_suggest(name, timm.list_models())}")
    options = {} if classes is None else {"num_classes": classes}
    model: nn.Module = timm.create_model(name, pretrained=trained and "." in name, **options)
    return model


def _timm_preprocessing(name: str) -> ImagePreprocessing:
    timm = import_optional("timm", "models")
    try:
        config = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    except RuntimeError as error:
        raise ModelError(f"timm:{name}: {_first_line(error)}") from error
    if config is None:
        return ImagePreprocessing(None, False, 3, *_IMAGENET)
    channels, side, _ = config.input_size
    return ImagePreprocessing(side, bool(config.fixed_input_size), channels, tuple(config.mean), tuple(config.std))


def _build_torchvision(name: str, classes: int | None, trained: bool) -> nn.Module:
    models = import_optional("torchvision.models", "models")
    classifiers = models.list_models(module=models)
    if name not in classifiers:
        raise ModelError(f"torchvision has no classifier {name!r}{_suggest(name, classifiers)}")
    options: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        options["init_weights"] = True  # else it warns that this default will change
    model: nn.Module = models.get_model(name, weights=None, **options)
    return model


def _torchvision_preprocessing(name: str) -> ImagePreprocessing:
    models = import_optional("torchvision.models", "models")
    try:
        side = int(models.get_model_weights(name).DEFAULT.transforms().crop_size[0])
    except (ValueError, AttributeError):
        side = 224
    return ImagePreprocessing(side, name.startswith(_FIXED_SIZE), 3, *_IMAGENET)


def _build_transformers(name: str, classes: int | None, trained: bool) -> nn.Module:
    transformers = import_optional("transformers", "models")
    config = _read_config(transformers, name)
    auto_class = _auto_class(transformers, config)
    if not trained:
        config.num_labels = config.num_labels if classes is None else classes
        untrained: nn.Module = auto_class.from_config(config)
        return untrained
    options: dict[str, Any] = {"use_safetensors": True, **_source_options(name)}
    if classes not in (None, config.num_labels):
        options |= {"num_labels": classes, "ignore_mismatched_sizes": True}
    logging = transformers.utils.logging
    bar_enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # for a local file the bar vanishes before it can be read
    try:
        model: nn.Module = auto_class.from_pretrained(name, **options)
    finally:
        if bar_enabled:
            logging.enable_progress_bar()
    return model


def _transformers_preprocessing(name: str) -> Preprocessing:
    transformers = import_optional("transformers", "models")
    try:
        config = _read_config(transformers, name)
        if _auto_class(transformers, config) is transformers.AutoModelForSequenceClassification:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **_source_options(name))
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            positions = getattr(config, "max_position_embeddings", _MOST_TOKENS)
            return Tokenization(tokenizer, name, min(tokenizer.model_max_length, positions, _MOST_TOKENS))
        processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, **_source_options(name))
    except (OSError, ValueError) as error:
        raise ModelError(f"hf:{name} does not describe its inputs: {_first_line(error)}") from error
    size = processor.get("size") or {}
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    scale = {} if processor.get("do_normalize", True) is False else processor
    mean, std = (tuple(scale.get(key, ())) for key in ("image_mean", "image_std"))
    return ImagePreprocessing(side, side is not None, getattr(config, "num_channels", 3), mean, std)


def _read_config(transformers: ModuleType, name: str) -> Any:
    """Return the configuration of a model; its number of labels is checked before transformers names each of them."""
    file = os.path.join(name, "config.json")
    if os.path.isfile(file):
        with open(file, encoding="utf-8") as stream:
            content = json.load(stream)
        labels = content.get("num_labels") if isinstance(content, dict) else None
        if labels is not None and not is_number_of_classes(labels):
            raise ModelError(f"hf:{name}: num_labels is {str(labels)[:40]}; expected 1 to {MOST_CLASSES:,}")
    return transformers.AutoConfig.from_pretrained(name, **_source_options(name))


def _auto_class(transformers: ModuleType, config: Any) -> Any:
    """Return transformers' automatic class of image classifiers or of text classifiers, whichever has this model."""
    from transformers.models.auto import modeling_auto

    if config.model_type in modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        return transformers.AutoModelForImageClassification
    if config.model_type in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES:
        return transformers.AutoModelForSequenceClassification
    raise ModelError(
        f"a {config.model_type} model is neither an image nor a text classifier that transformers knows; "
        "name a function that returns it instead (FILE.py:CALLABLE)"
    )


def _source_options(name: str) -> dict[str, bool]:
    """Return the option that keeps transformers from asking the hub about what is here."""
    hub = import_optional("huggingface_hub.constants", "models")
    return {"local_files_only": os.path.isdir(name) or hub.HF_HUB_OFFLINE}


def _suggest(name: str, offered: list[str]) -> str:
    close = difflib.get_close_matches(name.partition(".")[0], offered, _SUGGESTIONS)
    return f"; similar ones: {', '.join(close)}" if close else ""


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [""])[0][:200]


_Builder = Callable[[str, int | None, bool], nn.Module]
_PreprocessingOf = Callable[[str], Preprocessing]
_LIBRARIES: dict[str, tuple[_Builder, _PreprocessingOf]] = {
    "timm": (_build_timm, _timm_preprocessing),
    "torchvision": (_build_torchvision, _torchvision_preprocessing),
    "hf": (_build_transformers, _transformers_preprocessing),
}
