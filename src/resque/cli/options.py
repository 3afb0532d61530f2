"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

LEDGER = Path("resque.db")
UPDATES = Path("updates")
CHECKPOINTS = UPDATES / "checkpoints"
DATA_ROOT = Path("data")
Extend = Annotated[bool, typer.Option("--extend", help="Keep the old classes and widen the head.")]
PricePerKwh = Annotated[float, typer.Option(help="Price of a kWh.")]
PricePerHour = Annotated[float, typer.Option(help="Price of an hour of the machine.")]
EmbodiedKg = Annotated[float | None, typer.Option(help="kg CO2e of making the hardware; default: a published range.")]
LifeYears = Annotated[float | None, typer.Option(help="Its lifespan; default: 4.")]
Currency = Annotated[str, typer.Option(help="Of both prices.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout, nothing else there.")]
Model = Annotated[
    str, typer.Option(help="FILE.py:CALLABLE, package.module:CALLABLE, timm:NAME, torchvision:NAME, hf:PATH.")
]
Classes = Annotated[int | None, typer.Option(help="Outputs of the model; default: the weights', else the data's.")]
DataRoot = Annotated[Path, typer.Option(help="Where torchvision's data sets lie.")]
Weights = Annotated[Path | None, typer.Option(help="State dict: .safetensors, or .pt without pickled code.")]
Layer = Annotated[str | None, typer.Option(help="Module name, or penultimate; default: the paper's layer.")]
Reduction = Annotated[str, typer.Option(help="flatten, mean or token-mean.")]
OwnReduction = Annotated[
    str | None, typer.Option("--reduction", help="flatten, mean or token-mean; default: as the profile, else flatten.")
]
Labels = Annotated[str, typer.Option(help="true, or pseudo: the model's own predictions.")]
Limit = Annotated[int | None, typer.Option(help="Use at most this many samples of each data set.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, mps.")]
Country = Annotated[str | None, typer.Option(help="ISO alpha-3 code of the grid, e.g. FRA.")]
Intensity = Annotated[float | None, typer.Option(help="Carbon intensity in g CO2e/kWh; goes before --country.")]
Pue = Annotated[float, typer.Option(help="Power usage effectiveness: what the site draws per kWh of the machine.")]
LedgerFile = Annotated[Path, typer.Option("--ledger", envvar="RESQUE_LEDGER", help="The history file.")]
Target = Annotated[float, typer.Option(help="Accuracy to reach on the test data, e.g. 0.94.")]
ShiftType = Annotated[str | None, typer.Option(help="Name of the shift type; default: from the data's suffix.")]
_RECIPE = "retrain-adam, retrain-sgd, train-adam, train-sgd or FILE.toml; then settings: ,batch_size=64,trains=head"
RecipeName = Annotated[str, typer.Option("--recipe", help=_RECIPE)]
EvaluateEvery = Annotated[int | None, typer.Option(help="Steps between evaluations; default: each epoch.")]
MaxEpochs = Annotated[int | None, typer.Option(help="The longest run; default: the recipe's.")]
Seed = Annotated[int, typer.Option(help="Of random initial weights and of the order of the training samples.")]
