"""Models of timm, torchvision and transformers: built by name, and what each wants of its data.

``timm:NAME`` and ``torchvision:NAME`` are architectures with random weights; a timm name with a tag
(``timm:resnet18.a1_in1k``) has the weights that the tag names, which timm downloads. ``hf:PATH_OR_ID`` is a classifier
that transformers saved, read from a folder or, where there is none of that name, from the hub.
"""

import difflib
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from resque._optional import import_optional
from resque.data.preprocessing import ImagePreprocessing, Tokenization
from resque.errors import ModelError, ResqueError

LIBRARIES = ("timm", "torchvision", "hf")
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_FIXED = ("vit", "maxvit")
_SIMILAR = 8
_LONGEST = 512


def library_of(spec: str) -> tuple[str, str] | None:
    """``(family, name)`` of a specification, None if it is none of a family's."""
    family, colon, name = spec.partition(":")
    return (family, name) if colon and name and family in LIBRARIES else None


def has_random_weights(spec: str) -> bool:
    """Whether a specification names an architecture of a library with random weights.

    Example:
        >>> has_random_weights("timm:resnet18"), has_random_weights("timm:resnet18.a1_in1k")
        (True, False)
    """
    match library_of(spec):
        case ("torchvision", _):
            return True
        case ("timm", name):
            return "." not in name
    return False


def build_from_library(family: str, name: str, classes: int | None = None, trained: bool = True) -> nn.Module:
    """The model, with the weights that its name stands for.

    Args:
        family: One of :data:`FAMILIES`.
        name: In that family.
        classes: Outputs; None takes as many as the family gives it.
        trained: False leaves all weights random.

    Raises:
        ModelError: No such model (the message lists some with a similar name), or the library is not installed.
    """
    make = {"timm": _timm, "torchvision": _torchvision, "hf": _transformers}[family]
    try:
        return make(name, classes, trained)
    except ResqueError:
        raise
    except Exception as error:  # each library has its own
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"{family}:{name} cannot be built: {type(error).__name__}: {reason}") from error


def preprocessing_for(spec: str) -> ImagePreprocessing | Tokenization:
    """What a model's data must be like, from its specification alone; a user's own model takes images as they are.

    Example:
        >>> preprocessing_for("net.py:build")
        ImagePreprocessing(side=None, fixed=False, channels=None, mean=(), std=())
    """
    match library_of(spec):
        case ("timm", name):
            return _timm_preparation(name)
        case ("torchvision", name):
            return _torchvision_preparation(name)
        case ("hf", name):
            return _transformers_preparation(name)
    return ImagePreprocessing()


def _timm(name: str, classes: int | None, trained: bool) -> nn.Module:
    timm = import_optional("timm", "models")
    if not timm.is_model(name):
        raise ModelError(f"timm has no model {name!r}{_similar(name, timm.list_models())}")
    more = {} if classes is None else {"num_classes": classes}
    model: nn.Module = timm.create_model(name, pretrained=trained and "." in name, **more)
    return model


def _timm_preparation(name: str) -> ImagePreprocessing:
    timm = import_optional("timm", "models")
    found = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if found is None:
        return ImagePreprocessing(None, False, 3, *_IMAGENET)
    channels, side, _ = found.input_size
    return ImagePreprocessing(side, bool(found.fixed_input_size), channels, tuple(found.mean), tuple(found.std))


def _torchvision(name: str, classes: int | None, trained: bool) -> nn.Module:
    models = import_optional("torchvision.models", "models")
    if name not in (offered := models.list_models(module=models)):
        raise ModelError(f"torchvision has no classifier {name!r}{_similar(name, offered)}")
    more: dict[str, Any] = {} if classes is None else {"num_classes": classes}
    if name in ("googlenet", "inception_v3"):
        more["init_weights"] = True  # else it warns that this default will change
    model: nn.Module = models.get_model(name, weights=None, **more)
    return model


def _torchvision_preparation(name: str) -> ImagePreprocessing:
    models = import_optional("torchvision.models", "models")
    try:
        wanted = models.get_model_weights(name).DEFAULT.transforms()
        side = int(wanted.crop_size[0])
    except (ValueError, AttributeError):
        side = 224
    return ImagePreprocessing(side, name.startswith(_FIXED), 3, *_IMAGENET)


def _transformers(name: str, classes: int | None, trained: bool) -> nn.Module:
    transformers = import_optional("transformers", "models")
    config = transformers.AutoConfig.from_pretrained(name, **_where(name))
    form = _form(transformers, config)
    if not trained:
        config.num_labels = config.num_labels if classes is None else classes
        random: nn.Module = form.from_config(config)
        return random
    more: dict[str, Any] = {}
    if classes is not None and classes != config.num_labels:
        more = {"num_labels": classes, "ignore_mismatched_sizes": True}
    say = transformers.utils.logging
    shown = say.is_progress_bar_enabled()
    say.disable_progress_bar()  # a bar for a local file is gone before it is read
    try:
        model: nn.Module = form.from_pretrained(name, use_safetensors=True, **_where(name), **more)
    finally:
        if shown:
            say.enable_progress_bar()
    return model


def _form(transformers: ModuleType, config: Any) -> Any:
    """The automatic class for a configuration: image classifier or sequence classifier."""
    from transformers.models.auto import modeling_auto

    known: dict[str, Any] = {
        "AutoModelForImageClassification": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
        "AutoModelForSequenceClassification": modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    }
    for form, names in known.items():
        if config.model_type in names:
            return getattr(transformers, form)
    raise ModelError(
        f"a {config.model_type} model is neither an image nor a text classifier that transformers knows; "
        "name a function that returns it instead (FILE.py:CALLABLE)"
    )


def _transformers_preparation(name: str) -> ImagePreprocessing | Tokenization:
    transformers = import_optional("transformers", "models")
    try:
        config = transformers.AutoConfig.from_pretrained(name, **_where(name))
        if _form(transformers, config) is transformers.AutoModelForSequenceClassification:
            tokenizer = transformers.AutoTokenizer.from_pretrained(name, **_where(name))
            tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
            longest = min(tokenizer.model_max_length, getattr(config, "max_position_embeddings", _LONGEST), _LONGEST)
            return Tokenization(tokenizer, name, longest)
        processor, _ = transformers.ImageProcessingMixin.get_image_processor_dict(name, **_where(name))
    except (OSError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(f"hf:{name} does not say what its inputs are like: {reason}") from error
    size, channels = processor.get("size") or {}, getattr(config, "num_channels", 3)
    side = size if isinstance(size, int) else size.get("height") or size.get("shortest_edge")
    shown = processor.get("do_normalize", True)
    mean, std = (tuple(processor[key]) if shown and key in processor else () for key in ("image_mean", "image_std"))
    return ImagePreprocessing(side, side is not None, channels, mean, std)


def _where(name: str) -> dict[str, bool]:
    """A folder is read as it is, without asking the hub for anything."""
    return {"local_files_only": Path(name).is_dir()}


def _similar(name: str, offered: list[str]) -> str:
    close = difflib.get_close_matches(name.partition(".")[0], offered, _SIMILAR)
    return f"; similar ones: {', '.join(close)}" if close else ""
