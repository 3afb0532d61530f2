"""Options that several commands share, in the panels of their help; the defaults that a project file gives."""

from pathlib import Path
from typing import Annotated, Any

import typer

LEDGER = Path("resque.db")
UPDATES = Path("updates")
DATA_ROOT = Path("data")

MODEL = "Model and data"
INDEX = "Index"
RECIPE = "Recipe"
BUDGET = "Budget and price"
ENERGY = "Energy and carbon"
ENGINE = "Where runs are"
OUTPUT = "Output"


def option(panel: str, help: str, *names: str, **more: Any) -> Any:  # noqa: A002
    """Return a Typer option in a panel of the help."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


def _use_project(context: typer.Context, value: Path | None) -> Path | None:
    """Let the project file give the defaults of this command; it runs before the other options are read."""
    from resque.workflows.project import FILE, read_project

    path = value or FILE
    if value is not None or path.is_file():
        found = read_project(path).options(context.command.name or "")
        several = {each.name for each in context.command.params if getattr(each, "multiple", False)}
        context.default_map = {name: [item] if name in several else item for name, item in found.items()}
    return value


def is_from_project(context: typer.Context, name: str) -> bool:
    """Return whether a parameter has its value from the project file."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "DEFAULT_MAP"


Project = Annotated[
    Path | None,
    option(
        OUTPUT, "Project file with defaults of options; default: ./resque.toml.", is_eager=True, callback=_use_project
    ),
]
Json = Annotated[bool, option(OUTPUT, "Print one JSON object to stdout.", "--json")]
LedgerFile = Annotated[Path, option(OUTPUT, "History file.", "--ledger", envvar="RESQUE_LEDGER")]

MODELS = "FILE.py:CALLABLE, package.module:CALLABLE, timm:NAME, torchvision:NAME or hf:PATH"
Model = Annotated[str, option(MODEL, f"{MODELS}.")]
Weights = Annotated[Path | None, option(MODEL, "State dict: .safetensors, or .pt without pickled code.")]
Classes = Annotated[int | None, option(MODEL, "Outputs of the model; default: the weights', else the data's.")]
Download = Annotated[
    bool,
    option(
        MODEL,
        "Fetch hub names (hf:OWNER/NAME) and weights of tagged timm names that are not here.",
        "--download",
        envvar="RESQUE_DOWNLOAD",
    ),
]
Device = Annotated[str, option(MODEL, "cpu, cuda, cuda:1 or mps.")]
Limit = Annotated[int | None, option(MODEL, "Maximum number of samples of each dataset.")]
DataRoot = Annotated[Path, option(MODEL, "Folder of torchvision's datasets.")]
Test = Annotated[str, option(MODEL, "Held-out new data.")]
Extend = Annotated[bool, option(MODEL, "New task: keep the old classes and widen the head.", "--extend")]
ShiftType = Annotated[str | None, option(MODEL, "Name of the shift type; default: from the data's specification.")]

Layer = Annotated[str | None, option(INDEX, "Module name, or penultimate; default: the paper's layer.")]
OwnReduction = Annotated[
    str | None,
    option(
        INDEX,
        "flatten, mean or token-mean; default: the profile's, else token-mean for text, flatten for others.",
        "--reduction",
    ),
]
Labels = Annotated[str, option(INDEX, "true, or pseudo: the model's own predictions.")]

Precision = Annotated[
    str | None,
    option(INDEX, "Read only as many samples as the index needs: 0.03 (its share), 0.002rad, or both: 0.03,0.002rad."),
]

Target = Annotated[float, option(RECIPE, "Accuracy to reach on the test data, e.g. 0.94.")]
_RECIPES = "retrain-adam, retrain-sgd, train-adam, train-sgd or FILE.toml; then settings: ,batch_size=64,trains=head"
RecipeName = Annotated[str, option(RECIPE, _RECIPES, "--recipe")]
NoBundled = Annotated[bool, option(RECIPE, "Leave the bundled history out of the forecast.", "--no-bundled-history")]
EvaluateEvery = Annotated[int | None, option(RECIPE, "Steps between evaluations; default: once per epoch.")]
MaxEpochs = Annotated[int | None, option(RECIPE, "Maximum number of epochs; default: the recipe's.")]
Seed = Annotated[int, option(RECIPE, "Seed of random initial weights and of the data order.")]

MaxKwh = Annotated[float | None, option(BUDGET, "Limit of energy.", min=0.0)]
MaxKg = Annotated[float | None, option(BUDGET, "Limit of operational emissions, kg CO2e.", min=0.0)]
MaxHours = Annotated[float | None, option(BUDGET, "Limit of training time.", min=0.0)]
MaxPrice = Annotated[float | None, option(BUDGET, "Limit of the price.", min=0.0)]
PricePerKwh = Annotated[float, option(BUDGET, "Price of a kWh.")]
PricePerHour = Annotated[float, option(BUDGET, "Price of an hour of the machine.")]
Currency = Annotated[str, option(BUDGET, "Currency of the prices.")]

Engine = Annotated[str, option(ENGINE, "local: one run after the other; ray: those of a round on a cluster.")]
Address = Annotated[
    str | None, option(ENGINE, "Address of a Ray cluster; default: a Ray started here for this command.")
]

Country = Annotated[str | None, option(ENERGY, "ISO alpha-3 code of the electricity grid, e.g. FRA.")]
Intensity = Annotated[float | None, option(ENERGY, "Carbon intensity in g CO2e/kWh; overrides --country.")]
Pue = Annotated[float, option(ENERGY, "Power usage effectiveness of the site.")]
EmbodiedKg = Annotated[
    float | None, option(ENERGY, "Embodied emissions of the hardware, kg CO2e; default: a published range.")
]
LifeYears = Annotated[float | None, option(ENERGY, "Hardware lifespan in years; default: 4.")]
