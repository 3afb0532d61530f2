"""Values of options that no input makes right: wrong usage, exit code 2, before anything is read."""

import math
from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

from resque.cli.options import is_from_project
from resque.errors import ResqueError

__all__ = ["CheckedCommand", "wrong_value"]

_CHOICES = {
    "labels": ("true", "pseudo"),
    "unit": ("rad", "pi"),
    "undefined": ("error", "skip"),
    "init": ("class-means", "k-means++", "random", "all"),
    "keep": ("sizes", "labels"),
    "reduction": ("flatten", "mean", "token-mean"),
    "engine": ("local", "ray"),
    "by": ("shift-type", "condition", "seed", "model", "kind"),  # the last one as it was called before
}
_LEAST = {"seed": -math.inf, "warmup_steps": 0, "pue": 1.0}
_ASKED_ONCE = "task", "shifted"
_SHARES = "target_accuracy", "floor", "confidence"


class CheckedCommand(TyperCommand):
    """A command that refuses a wrong value as wrong usage, whether it is typed or from the project file.

    So are new data that are named twice: to take the last, as other options do, would answer half of a question.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments, and raise BadParameter for the first wrong value."""
        typed = [*args]
        rest = super().parse_args(ctx, args)
        parameter: Any  # its class is click's, or the one in typer, depending on the version
        if not ctx.resilient_parsing:
            given: list[Any] = self.make_parser(ctx).parse_args(typed)[2]
            for parameter in self.params:
                if parameter.name in _ASKED_ONCE and given.count(parameter) > 1:
                    raise typer.BadParameter("given twice: ask once for each", ctx=ctx, param=parameter)
        for parameter in self.params:
            name = parameter.name or ""
            expected = wrong_value(name, ctx.params.get(name))
            if expected is not None:
                where = " in the project file" if is_from_project(ctx, name) else ""
                raise typer.BadParameter(f"{ctx.params[name]}{where}: {expected}", ctx=ctx, param=parameter)
        return rest


def wrong_value(name: str, value: Any) -> str | None:
    """Return what was expected of an option; None if the value is right as far as it alone can tell.

    Args:
        name: Name of the parameter.
        value: Its value; None if it is not given.

    Example:
        >>> wrong_value("confidence", 1.5), wrong_value("max_hours", 2.0)
        ('expected a number between 0 and 1, such as 0.8', None)
    """
    if value is None or isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        return _wrong_number(name, value)
    if name in _CHOICES and value not in _CHOICES[name]:
        return f"expected one of {', '.join(_CHOICES[name])}"
    try:
        if (parse := _parser(name)) is not None:
            parse(value)
    except ResqueError as error:
        return str(error)
    return None


def _wrong_number(name: str, value: float) -> str | None:
    if name in _SHARES:
        highest = math.nextafter(1.0, 0.0) if name == "confidence" else 1.0
        example = "a number between 0 and 1, such as 0.8" if name == "confidence" else "a share in (0, 1], such as 0.9"
        return None if 0.0 < value <= highest else f"expected {example}"
    least = _LEAST.get(name, 1 if isinstance(value, int) else 0)
    if least <= value < math.inf and not (name == "life_years" and value == 0.0):
        return None
    return f"expected a number from {least:g} on" if math.isfinite(least) else "expected a number"


def _parser(name: str) -> Callable[[Any], object] | None:
    """Return the function that reads the text of an option; None if it takes any."""
    if name == "pilot":
        from resque.workflows.pilots import parse_pilot

        return parse_pilot
    if name == "precision":
        from resque.indices.sampled_dist import Precision

        return Precision.parse
    if name == "shard":
        from resque.data.shards import parse_shard

        return parse_shard
    if name == "target_accuracy":  # of a calibration: perhaps a range
        from resque.workflows.calibration_defaults import parse_targets

        return parse_targets
    return None
