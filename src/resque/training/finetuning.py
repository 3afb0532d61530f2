"""Fine-tuning scope: all parameters, the head, the scales of normalization, or adapters (LoRA) and the head."""

from typing import Any

from torch import nn

from resque._optional import import_optional
from resque.errors import ModelError, SettingError
from resque.models.batchnorm import normalization_layers
from resque.models.layers import dense_names, head, head_name

__all__ = ["SCALES", "STATISTICS", "FineTuningScope", "check_scope"]

STATISTICS, SCALES = "norm", "norm-scales"
"""Values of ``trains`` that change normalization layers alone: their statistics, or also their scales."""
_SCOPES = ("all", "head", "lora", STATISTICS, SCALES)
_RANK = 8


class FineTuningScope:
    """A model restricted to the parameters that a recipe trains, until :meth:`end`.

    Adapters (Hu et al., LoRA, 2022) are added to every dense layer but the head, and are merged into its weights at
    the end.

    Args:
        model: Model to train; changed in place.
        trains: ``"all"``, ``"head"``, ``"lora"``, or ``"norm-scales"``, the scales and shifts of normalization layers,
            whose running statistics then follow the data as in any training.
        rank: Rank of the adapters.

    Attributes:
        trainable_share: Share of the parameters that are trained, adapters included.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> scope = FineTuningScope(model, "head")
        >>> scope.trainable_share, [p.requires_grad for p in model.parameters()]
        (0.3103448275862069, [False, False, True, True])
        >>> scope.end()
        >>> all(p.requires_grad for p in model.parameters())
        True
    """

    def __init__(self, model: nn.Module, trains: str = "all", rank: int = _RANK) -> None:
        self._model = model
        self._required_grad = {name: p.requires_grad for name, p in model.named_parameters()}
        self._adapted: Any = None
        self._parts: list[nn.Module] | None = None
        if trains != "all":
            self._parts = _normalization(model) if trains == SCALES else [head(model)]
            model.requires_grad_(False)
            if trains == "lora":
                self._adapted = _add_adapters(model, rank)
            for part in self._parts:
                part.requires_grad_(True)
        size = sum(p.numel() for p in model.parameters())  # with adapters, of which there may be more than of the rest
        self.trainable_share = sum(p.numel() for p in model.parameters() if p.requires_grad) / size if size else 0.0

    def train(self) -> None:
        """Switch to training mode; frozen parts, and their running statistics, stay in evaluation mode."""
        self._model.train(self._parts is None or self._adapted is not None)
        for part in self._parts or ():
            part.train()
        if self._adapted is not None:
            for module in self._model.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    module.eval()

    def end(self) -> None:
        """Merge the adapters, and restore which parameters require gradients."""
        if self._adapted is not None:
            self._adapted.merge_and_unload()
            self._adapted = None
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._required_grad[name])
            parameter.grad = None


def check_scope(trains: str, rank: int) -> None:
    """Raise an error unless the scope exists and the rank is positive.

    Raises:
        SettingError: The scope is unknown, or the rank is below 1.
    """
    if trains not in _SCOPES:
        raise SettingError(f"trains {trains!r}: use {', '.join(_SCOPES)}")
    if rank < 1:
        raise SettingError(f"rank {rank}: expected 1 or more")


def _normalization(model: nn.Module) -> list[nn.Module]:
    layers = normalization_layers(model)
    if not layers:
        raise ModelError("the model has no normalization layer with scales to train: use trains=head or all")
    return layers


def _add_adapters(model: nn.Module, rank: int) -> Any:
    peft = import_optional("peft", "lora")
    output_layer = head_name(model)
    names = [name for name in dense_names(model) if name != output_layer]
    if not names:
        raise ModelError("the model has no dense layer besides its head, so none for adapters: trains=all or head")
    weights: dict[str, Any] = {name: model.get_submodule(name).weight for name in names}
    most = max(_RANK, *(min(weight.shape) for weight in weights.values()))
    if rank > most:
        raise SettingError(f"rank {rank}: expected at most {most}, the smaller side of the largest dense layer")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, bias="none")
    return peft.LoraModel(model, config, "default")
