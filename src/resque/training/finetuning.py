"""Which parameters of a model a training changes: all of them, the head alone, or low-rank adapters beside the head."""

from typing import Any

from torch import nn

from resque._optional import import_optional
from resque.errors import ModelError, SettingError
from resque.models.layers import dense_names, head, head_name

SCOPES = ("all", "head", "lora")


class FineTuningScope:
    """A model made ready to train in part; :meth:`end` makes it a plain model again.

    Adapters (Hu et al., LoRA, 2022) go to every dense layer but the head, and are merged into its weights at the end.

    Args:
        model: Changed in place.
        trains: ``"all"``, ``"head"`` or ``"lora"``.
        rank: Of the adapters.

    Example:
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> tuning = FineTuningScope(model, "head")
        >>> tuning.share, [p.requires_grad for p in model.parameters()]
        (0.3103448275862069, [False, False, True, True])
        >>> tuning.end()
        >>> all(p.requires_grad for p in model.parameters())
        True
    """

    def __init__(self, model: nn.Module, trains: str = "all", rank: int = 8) -> None:
        self._model = model
        self._flags = {name: p.requires_grad for name, p in model.named_parameters()}
        self._adapted: Any = None
        self._head = None if trains == "all" else head(model)
        whole = sum(p.numel() for p in model.parameters())
        if trains != "all":
            model.requires_grad_(False)
        if trains == "lora":
            self._adapted = _adapted(model, rank)
        if self._head is not None:
            self._head.requires_grad_(True)
        self.share = sum(p.numel() for p in model.parameters() if p.requires_grad) / whole if whole else 0.0

    def train(self) -> None:
        """Training mode; what does not train stays in evaluation mode, running statistics included."""
        self._model.train(self._head is None)
        if self._head is not None:
            self._head.train()
        if self._adapted is not None:
            self._model.train()
            for module in self._model.modules():
                if isinstance(module, nn.modules.batchnorm._NormBase):
                    module.eval()

    def end(self) -> None:
        """Merge adapters, and let each parameter require gradients as it did before."""
        if self._adapted is not None:
            self._adapted.merge_and_unload()
            self._adapted = None
        for name, parameter in self._model.named_parameters():
            parameter.requires_grad_(self._flags[name])
            parameter.grad = None


def check_scope(trains: str, rank: int) -> None:
    """Refuse what cannot be trained."""
    if trains not in SCOPES:
        raise SettingError(f"trains {trains!r}: use {', '.join(SCOPES)}")
    if rank < 1:
        raise SettingError(f"rank {rank}: expected 1 or more")


def _adapted(model: nn.Module, rank: int) -> Any:
    peft = import_optional("peft", "lora")
    own = head_name(model)
    names = [name for name in dense_names(model) if name != own]
    if not names:
        raise ModelError("the model has no dense layer besides its head, so none for adapters: trains=all or head")
    config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=names, bias="none")
    return peft.LoraModel(model, config, "default")
