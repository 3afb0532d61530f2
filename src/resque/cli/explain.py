"""``resque explain``: which classes carry a shift and its errors."""

from pathlib import Path
from typing import Annotated

from resque.cli import options as opt
from resque.cli.loading import model_options


def explain(
    model: opt.Model,
    original: Annotated[str, opt.option(opt.MODEL, "Profile (.safetensors) or data that the model was trained on.")],
    shifted: Annotated[str, opt.option(opt.MODEL, "New labeled data, of the same classes.")],
    weights: opt.Weights = None,
    classes: opt.Classes = None,
    download: opt.Download = False,
    limit: opt.Limit = None,
    data_root: opt.DataRoot = opt.DATA_ROOT,
    device: opt.Device = "cpu",
    layer: opt.Layer = None,
    reduction: opt.OwnReduction = None,
    picture: Annotated[
        Path | None, opt.option(opt.OUTPUT, "Draw which class is taken for which into this file (.svg).")
    ] = None,
    project: opt.Project = None,
    as_json: opt.Json = False,
) -> None:
    """Explain which classes carry a shift and its errors, and what would help most.

    Errors are counted before and after normalization is re-estimated, which is free. Classes that exchanged names are
    recognized.

    Example: resque explain --model net.py:build --weights net.safetensors --original net.profile
    --shifted npz:new.npz
    """
    from resque.reporting import class_reports, console
    from resque.workflows import explain as workflow

    class_reports.check_picture(picture)
    report = workflow.explain(
        model, original, shifted,
        layer=layer, reduction=reduction, options=model_options(weights, classes, device, limit, data_root, download),
    )  # fmt: skip
    if picture is not None:
        class_reports.draw(report, picture)
    console.print_json(class_reports.to_json(report)) if as_json else class_reports.show(report)
