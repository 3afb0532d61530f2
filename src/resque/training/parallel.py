"""Share the steps of a training among processes: PyTorch's DistributedDataParallel on parts of each global batch.

The batch size of a recipe is that of all processes together. Each takes its part of every batch, and the loss is
weighted by the part's size. So the gradient is that of the whole batch, also where a batch does not divide evenly.
"""

import functools
import platform
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from resque._processes import LONGEST, Processes, lost_process
from resque.errors import ModelError, SettingError
from resque.models.batchnorm import has_running_statistics
from resque.models.inference import device_of, eval_mode, forward
from resque.models.randomness import isolated_random_state

__all__ = [
    "differences", "own_batch_size", "own_rows", "own_weight", "require_own_gpus", "share_buffers", "share_gradients",
    "step_of_all",
]  # fmt: skip

_LOST = re.compile("gloo|NCCL|by peer")


def differences(model: nn.Module, augments: bool) -> str:
    """Return why the learning curve is not that of one process; empty if it is, up to rounding.

    Example:
        >>> differences(nn.Linear(2, 2), augments=False), differences(nn.BatchNorm1d(2), augments=False)[:25]
        ('', 'batch normalization takes')
    """
    draws = any(isinstance(module, nn.modules.dropout._DropoutNd) and module.p for module in model.modules())
    reasons = {
        "batch normalization takes the statistics of each process's part of a batch": has_running_statistics(model),
        "each process draws its own augmentation and dropout": augments or draws,
    }
    return "; ".join(reason for reason, holds in reasons.items() if holds)


def own_batch_size(batch_size: int, processes: Processes) -> int:
    """Return the samples of a whole batch that this process takes.

    Raises:
        SettingError: The batch has fewer samples than there are processes.

    Example:
        >>> own_batch_size(5, Processes(0, 2)), own_batch_size(5, Processes(1, 2))
        (3, 2)
    """
    if batch_size < processes.count:
        raise SettingError(
            f"batch_size={batch_size} of the recipe is that of all {processes.count} processes together; "
            f"expected at least {processes.count}"
        )
    return batch_size // processes.count + (processes.rank < batch_size % processes.count)


def own_rows(order: Tensor, batch_size: int, processes: Processes) -> Tensor:
    """Return the rows that this process takes, batch after batch; one of weight 0 where a batch has none for it.

    Args:
        order: Rows of an epoch, or of its rest.
        batch_size: Samples of a batch of all processes.
        processes: This process among all.

    Example:
        >>> [own_rows(torch.arange(7), 3, Processes(rank, 2)).tolist() for rank in (0, 1)]
        [[0, 1, 3, 4, 6], [2, 5, 6]]
    """
    parts = ((batch, batch.tensor_split(processes.count)[processes.rank]) for batch in torch.split(order, batch_size))
    return torch.cat([part if len(part) else batch[:1] for batch, part in parts])


def own_weight(n: int, processes: Processes) -> float:
    """Return the weight of this process's mean loss over a batch of ``n``, so that their mean is that of the batch.

    Example:
        >>> own_weight(3, Processes(0, 2)), own_weight(1, Processes(1, 2))
        (1.3333333333333333, 0.0)
    """
    own = n // processes.count + (processes.rank < n % processes.count)
    return own * processes.count / n


def share_gradients(model: nn.Module, sample: Any, processes: Processes) -> nn.Module:
    """Return the model in a wrapper whose backward pass gives every process the mean of all gradients.

    Args:
        model: Model; from here on it has the weights of the first process.
        sample: A pair of inputs and labels, to see which parameters they reach.
        processes: This process among all.

    Raises:
        SettingError: Two processes have the same GPU.
    """
    from torch.nn.parallel import DistributedDataParallel

    device = device_of(model)
    if device.type == "cuda":
        require_own_gpus(processes.combine((platform.node(), str(device)), list))
    group = _nccl(device) if device.type == "cuda" else None
    return DistributedDataParallel(model, process_group=group, find_unused_parameters=_has_unused(model, sample))


def require_own_gpus(places: list[tuple[str, str]]) -> None:
    """Refuse two processes with the same GPU, between which NCCL exchanges no gradients.

    Args:
        places: Name of the machine and of the device of each process.

    Raises:
        SettingError: Two processes have the same GPU.

    Example:
        >>> require_own_gpus([("a", "cuda:0"), ("b", "cuda:0"), ("b", "cuda:1")])
    """
    gpus = len(set(places))
    if gpus < len(places):
        raise SettingError(
            f"{len(places)} processes have {gpus} GPU{'s' * (gpus > 1)}, and each needs one of its own to exchange "
            "gradients: pass --device cuda, and start as many processes as there are GPUs"
        )


def share_buffers(model: nn.Module, processes: Processes) -> None:
    """Give every process the buffers of the first, such as running statistics, so that all have the same model.

    Example:
        >>> share_buffers(nn.BatchNorm1d(2), Processes())
    """
    with torch.no_grad():
        for buffer, value in zip(model.buffers(), processes.first(lambda: list(model.buffers())), strict=True):
            buffer.copy_(value)


@contextmanager
def step_of_all(processes: Processes) -> Iterator[None]:
    """Say in one line that another process has ended, if it does so while all exchange gradients in the block.

    Args:
        processes: This process among all.

    Example:
        >>> with step_of_all(Processes()):
        ...     print("a step")
        a step
    """
    try:
        yield
    except (RuntimeError, ModelError) as error:
        if processes.count > 1 and _LOST.search(f"{error} {error.__cause__}"):
            raise lost_process() from error
        raise


def _has_unused(model: nn.Module, sample: Any) -> bool:
    """Return whether a loss leaves a parameter without a gradient, for which the wrapper has to search each time."""
    inputs, labels = sample
    with isolated_random_state(device_of(model)), eval_mode(model), torch.enable_grad():
        torch.autograd.backward(F.cross_entropy(forward(model, inputs), labels))
    unused = any(p.requires_grad and p.grad is None for p in model.parameters())
    model.zero_grad(set_to_none=True)
    return unused


@functools.cache
def _nccl(device: torch.device) -> Any:
    torch.cuda.set_device(device)
    return torch.distributed.new_group(backend="nccl", timeout=LONGEST)
