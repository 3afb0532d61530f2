"""Shared fixtures: real data, a small real model, a meter that replays a power."""

import functools
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # read once, by the libraries below; tests run on all cores as it is
os.environ.setdefault("MPLBACKEND", "Agg")

import pytest
import torch
import typer.main
from hypothesis import settings
from torch import nn

from doubles import ReplayMeter, environment_of_a_user, shell
from resque.cli import main
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.models.networks import small_cnn
from warm import possible, served

commands_of = functools.cache(typer.main.get_command)  # which typer makes anew for each command line, in 0.05 s
torch.set_num_threads(1)  # small networks; two busy cores make threads wait for each other
settings.register_profile("resque", deadline=None, max_examples=40, derandomize=True)
settings.load_profile("resque")

LONGEST = ("test_ray_engine.py", "test_demo.py", "test_readme.py", "test_torchrun.py", "test_calibration_outcome.py")
LONGEST += ("test_torchrun_retrain.py", "test_gpu_visit.py", "test_compare_models.py", "test_calibration_runs.py")
LONGEST += ("test_pilots.py", "test_compare.py", "test_cross_validation.py", "test_device.py", "test_html.py")
"""Files that take longest, the longest first."""


@pytest.fixture(autouse=True)
def unhurried(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine a command has no lines of progress that it has none of on an idle one."""
    if request.path.name != "test_progress.py":
        monkeypatch.setattr("resque.reporting.progress._SILENT_S", 600.0)


@pytest.fixture
def meter() -> ReplayMeter:
    return ReplayMeter()


@pytest.fixture(scope="session")
def digits() -> LabeledDataset:
    return load_data("digits@16px")


@pytest.fixture(scope="session")
def small(digits: LabeledDataset) -> tuple[LabeledDataset, LabeledDataset]:
    return digits.part("train").take(torch.arange(320)), digits.part("test").take(torch.arange(200))


@pytest.fixture
def cnn() -> nn.Module:
    torch.manual_seed(0)
    return small_cnn()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RESQUE_LEDGER", raising=False)
    return tmp_path


@pytest.fixture
def cli(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """A command line, run in this process: exit code, stdout, stderr."""
    monkeypatch.setattr(typer.main, "get_command", commands_of)

    def call(line: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["resque", *line.split()])
        with pytest.raises(SystemExit) as stop:
            main()
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def warm_shell(tmp_path_factory: pytest.TempPathFactory):
    """A shell in which ``resque`` starts at once; where that cannot be, one in which it starts as usual."""
    folder = tmp_path_factory.mktemp("warm")
    if not possible(folder):
        yield shell
        return
    with served(folder, environment_of_a_user()) as resque:
        yield functools.partial(shell, resque=resque)


def pytest_configure(config: pytest.Config) -> None:
    """pytest-xdist would begin with the files of most tests, whatever their order here."""
    config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no core is left alone with one of them at the end."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))
