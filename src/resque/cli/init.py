"""``resque init``: write and check a project file."""

from pathlib import Path
from typing import Annotated

from resque.cli import options as opt


def init(
    model: Annotated[str | None, opt.option(opt.MODEL, "Model specification, e.g. net.py:build.")] = None,
    weights: Annotated[str | None, opt.option(opt.MODEL, "State dict of the model.")] = None,
    download: opt.Download = False,
    original: Annotated[str | None, opt.option(opt.MODEL, "Profile or data before the shift.")] = None,
    test: Annotated[str | None, opt.option(opt.MODEL, "Held-out new data.")] = None,
    original_test: Annotated[str | None, opt.option(opt.MODEL, "Held-out original data.")] = None,
    target_accuracy: Annotated[float | None, opt.option(opt.RECIPE, "Accuracy to reach on the test data.")] = None,
    recipe: Annotated[str | None, opt.option(opt.RECIPE, "How the model is trained.")] = None,
    device: Annotated[str | None, opt.option(opt.MODEL, "cpu, cuda, cuda:1 or mps.")] = None,
    country: Annotated[str | None, opt.option(opt.ENERGY, "ISO alpha-3 code of the electricity grid.")] = None,
    ledger: Annotated[str | None, opt.option(opt.OUTPUT, "History file.")] = None,
    project: Annotated[Path, opt.option(opt.OUTPUT, "Project file to write; an existing one is kept.")] = Path(
        "resque.toml"
    ),
    as_json: opt.Json = False,
) -> None:
    """Write a commented project file and check it: load the model, pass one batch, say what was found.

    Every option that the file gives may then be left out of a command.

    Example: resque init --model net.py:build --weights net.safetensors --test npz:new-test.npz --target-accuracy 0.9
    """
    from resque.reporting import console, tables
    from resque.workflows.project_check import start_project

    given = {
        ("model", "spec"): model, ("model", "weights"): weights, ("model", "original"): original,
        ("model", "download"): download or None,
        ("data", "test"): test, ("data", "original_test"): original_test,
        ("update", "target_accuracy"): target_accuracy, ("update", "recipe"): recipe, ("update", "device"): device,
        ("cost", "country"): country, ("ledger", "path"): ledger,
    }  # fmt: skip
    values = {key: value for key, value in given.items() if value is not None}
    found = start_project(project, values)
    facts = {"project": str(project), **found}
    if as_json:
        console.print_json(facts)
        return
    tables.show_facts(facts)
    if model is None:
        console.out.print(f"Fill in {project}, at least the model, then leave its options out of every command.")
