"""A value that no input makes right is wrong usage, in every command: exit code 2, before anything is read."""

import inspect
import math
import typing

import pytest
import typer

from resque.cli.app import app
from resque.cli.values import wrong_value
from resque.errors import SettingError
from resque.workflows.pilots import parse_pilot

ROOT = typer.main.get_command(app)
TEXTS = {
    "pilot": ["x", "-1", "1.5", "0%", "-5%", "101%", "200%", "nan%", "%"],
    "precision": ["x", "0", "-0.1", "nan", "2", "0.1,0.2"],
    "shard": ["0/2", "3/2", "1/0", "a", "1.5/2", "-1/2", "1", "1/", "/2"],
    "labels": ["x", "TRUE"],
    "reduction": ["x"],
    "unit": ["deg"],
    "undefined": ["x"],
    "init": ["x"],
    "keep": ["x"],
    "engine": ["x"],
    "by": ["x"],
}
SHARES = {
    "confidence": ["0", "1", "1.5", "-0.1", "nan", "inf"],
    "target_accuracy": ["0", "-1", "1.01", "nan", "inf"],
    "floor": ["0", "1.01", "nan"],
}


def commands():
    found = dict(ROOT.commands)
    found |= {f"ledger {name}": each for name, each in found.pop("ledger").commands.items()}
    return found


def wrong_lines():
    """Every option that holds a number or has a grammar, in each command that has it, with values that are wrong."""
    for name, each in commands().items():
        types = typing.get_type_hints(inspect.unwrap(each.callback))
        for parameter in each.params:
            kind, option = {types.get(parameter.name), *typing.get_args(types.get(parameter.name))}, parameter.name
            numbers = ["-1", "nan", "inf", "x"] if float in kind else ["-1", "0", "1.5"] if int in kind else []
            if option in ("seed", "warmup_steps"):
                numbers = ["1.5", "x"]
            values = SHARES.get(option) or TEXTS.get(option) or numbers
            yield from ((name, parameter.opts[0], value) for value in values)


def required_words(command, but=""):
    """The bare minimum of what a command requires, as none of its files exists."""
    return [
        f"{each.opts[0]}={'0.9' if each.name == 'target_accuracy' else 'none'}"
        if each.opts[0].startswith("-")
        else "none"
        for each in commands()[command].params
        if each.required and each.opts[0] != but
    ]


LINES = sorted(set(wrong_lines()))


def test_all_commands_have_such_options():
    assert {name for name, _, _ in LINES} >= {"forecast", "compare", "retrain", "plan", "calibrate", "dist", "task"}
    assert len(LINES) > 250


@pytest.mark.parametrize("command", sorted({name for name, _, _ in LINES}))
def test_wrong_value_is_wrong_usage(cli, command):
    for _, option, value in (line for line in LINES if line[0] == command):
        code, out, err = cli(" ".join([command, *required_words(command, option), f"{option}={value}"]))
        assert (code, out) == (2, ""), (command, option, value, err)
        assert option in err
        assert "Traceback" not in err


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "confidence": [0.01, 0.5, 0.999],
        "target_accuracy": [0.01, 1.0, "0.7:0.85"],
        "pilot": ["0", "100", "5%", "100%"],
        "precision": ["0.03", "0.002rad", "0.03,0.002rad"],
        "shard": ["1/1", "2/8"],
        "max_hours": [0.0, 1e9],
        "seed": [-1, 0],
        "warmup_steps": [0],
        "by": ["shift-type", "kind"],
        "model": ["anything"],
    }.items(),
)
def test_right_values_pass(name, values):
    assert [wrong_value(name, value) for value in (*values, None)] == [None] * (len(values) + 1)


@pytest.mark.parametrize("line", ["compare --task=a --task=b", "compare --shifted=a --shifted=a"])
def test_new_data_named_twice_are_refused_and_of_other_options_the_last_counts(cli, line):
    rest = "--model=m:b --test=c --target-accuracy=2 --target-accuracy=0.9"
    code, _, err = cli(f"{line} {rest}")
    assert (code, "given twice: ask once for each" in err, line.split()[1].split("=")[0] in err) == (2, True, True)
    code, _, err = cli(f"{line.rpartition(' ')[0]} {rest}")
    assert (code, "given twice" in err) == (1, False)


def test_the_project_file_is_named(cli, folder):
    (folder / "resque.toml").write_text("[budget]\nconfidence = 1.5\n")
    code, _, err = cli("compare --model=m:b --shifted=x --test=x --target-accuracy=0.9")
    assert (code, "project file" in err, "1.5" in err) == (2, True, True)


@pytest.mark.parametrize("share", [100.5, 101, 200, 1e9, math.inf])
def test_pilot_beyond_the_longest_run_is_refused(share):
    with pytest.raises(SettingError, match=r"such as 5%"):
        parse_pilot(f"{share}%")
