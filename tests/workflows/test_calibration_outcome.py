"""What runs tell of the targets, and what is said of a forecast that comes next."""

import dataclasses
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from doubles import ended_early, synthetic_update
from resque.data.loading import load_data
from resque.errors import SettingError
from resque.ledger.records import WOULD_NOT_REACH
from resque.ledger.store import Ledger
from resque.workflows.calibration_defaults import accuracy_noise, parse_targets
from resque.workflows.calibration_outcome import run_outcome

SHARES = st.floats(0.05, 0.95)


@given(st.floats(0.01, 1.0), st.floats(0.01, 1.0))
def test_a_range_of_targets_is_read_from_text_pair_and_list(one, other):
    low, high = sorted((one, other))
    assert parse_targets(f"{low!r}:{high!r}") == parse_targets((low, high)) == parse_targets([low, high]) == (low, high)
    assert parse_targets(low) == parse_targets(repr(low)) == (low, low)


@pytest.mark.parametrize(
    "given_targets",
    ["", ":", "0.7:", "0.9:0.7", "0.7:0.8:0.9", "x:1", "nan", "0:0.5", 1.2, 0, (0.9, 0.8), (), None, "0.7-0.8"],
)
def test_what_is_no_range_of_targets_is_one_line(given_targets):
    with pytest.raises(SettingError, match="expected a share") as refused:
        parse_targets(given_targets)
    assert "\n" not in str(refused.value)


@given(SHARES, SHARES, SHARES, SHARES, st.sampled_from(["max", WOULD_NOT_REACH, "max hours"]), st.integers(50, 5000))
def test_an_informative_run_reached_a_target_from_below_or_was_censored_honestly(start, end, one, other, why, samples):
    low, high = sorted((one, other))
    made = synthetic_update("u", index=0.1, steps=100, accuracy=start, target=end)
    outcome = run_outcome(dataclasses.replace(made, stopped_by=why, reached=False), (low, high), samples)
    noise, best = accuracy_noise(min(max(start, end), high), samples), max(start, end)
    if outcome.reached is not None:
        assert low <= outcome.reached <= min(best, high)
        assert start < outcome.reached - noise
    assert outcome.gave_up == (why == WOULD_NOT_REACH)
    if outcome.is_informative and outcome.reached is None:
        assert best < low
        assert not outcome.gave_up
    if start >= high:
        assert not outcome.is_informative


def test_a_run_that_a_forecast_gave_up_is_marked_as_that():
    given_up = ended_early(synthetic_update("u", index=0.1, steps=100), stopped_by=WOULD_NOT_REACH)
    assert given_up.ended_by_budget
    outcome = run_outcome(given_up, (0.88, 0.9), 1000)
    assert (outcome.gave_up, outcome.is_informative) == (True, False)


@pytest.fixture
def line(folder, trained) -> str:
    """A command that calibrates the tiny network; new data lie beside it, with labels and without."""
    new = load_data("digits+shear:6")
    x = (new.inputs.float() * 255).round().to(dtype=new.inputs.new_zeros(0).byte().dtype).numpy()
    np.savez(folder / "new.npz", x=x[:, 0], y=new.labels.numpy())
    np.savez(folder / "bare.npz", x=x[:, 0])
    net = f"--model {trained[0]}:build --weights {trained[1]}"
    recipe = "train-adam,learning_rate=0.005,max_epochs=6"
    return f"calibrate {net} --data digits@train --test digits@test --recipe {recipe} --updates 5"


ASKED = ["", "--target-accuracy 0.6:0.85", "--like npz:new.npz --target-accuracy 0.8:0.93",
         "--like npz:bare.npz", "--target-accuracy 0.95:0.99"]  # fmt: skip


@pytest.mark.parametrize("asked", ASKED)
def test_a_forecast_can_be_asked_for_exactly_when_calibrate_says_so(cli, line, short_history, asked):
    code, out, err = cli(f"{line} {asked}")
    assert code == 0, err
    command = next(row for row in out.splitlines() if row.startswith("resque forecast")).removeprefix("resque ")
    says_ready = "A forecast can be asked for now" in out
    assert says_ready == ("--pilot" not in command)
    assert says_ready or "not reliable yet" in err
    if asked == ASKED[-1]:
        assert not says_ready
    name = out.partition("of updates like")[2].partition(":\n")[0].strip() if says_ready else "blur:9"
    held_out = name if name.startswith("npz:") else f"digits@test+{name}"  # as bare as the new data
    if not says_ready:  # a pilot needs labels
        command = command.replace("npz:bare.npz", "npz:new.npz").replace("--labels pseudo", "")
    command = command.replace("NEW-HELD-OUT", held_out).replace(
        "--shifted NEW ", f"--shifted digits@train@shifted+{name} "
    )
    for gate in ("", " --max-hours 1"):
        code, out, err = cli(command + gate)
        assert code in (0, 3), out + err


def test_json_has_candidates_runs_and_readiness(cli, line, short_history):
    code, out, err = cli(f"{line} --json --country FRA")
    assert code == 0, err
    first, updates = json.loads(out), Ledger("resque.db").updates()
    assert [each["id"] for each in first["updates"]] == [update.id for update in updates]
    assert all(update.grid.region == "FRA" for update in updates)
    assert {update.train_data.partition("+")[0] for update in updates} == {"digits@train@shifted"}
    assert len(first["outcomes"]) == 5
    assert first["readiness"]["targets"] or first["readiness"]["missing"]
    assert 0.96 * first["clean_accuracy"] < first["target_accuracy"] < 0.97 * first["clean_accuracy"] + 1e-9
    code, out, err = cli(f"{line.replace('--updates 5', '--updates 6')} --max-minutes 0 --json")
    assert code == 3, err
    assert "beyond budget, nothing was trained" in err
    second = json.loads(out)
    assert set(second["done"].values()) == {update.id for update in updates}
    assert (second["at_most"]["runs"], len(second["updates"])) == (1, 5)
    assert len(Ledger("resque.db").updates()) == 5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--max-hours 1 --max-minutes 1", "give one of them"),
        ("--like digits --target-accuracy 0.93", "there is nothing to forecast"),
        ("--like clean.safetensors", "name the data"),
        ("--data digits~digits", "one source"),
        ("--address auto", "the local engine has no address, and 'auto' was given: add --engine ray"),
    ],
)
def test_wrong_options_are_one_line(cli, line, options, message):
    code, out, err = cli(f"{line} {options}")
    assert (code, out) == (1, "")
    assert message in err.splitlines()[-1]


def test_minutes_of_the_command_line_go_before_hours_of_the_project_file(cli, line, folder):
    (folder / "resque.toml").write_text('[calibration]\nmax_hours = 5.0\ntarget_accuracy = "0.6:0.93"\n')
    code, out, err = cli(f"{line} --max-minutes 0 --json")
    assert code == 3, err
    assert json.loads(out)["targets"] == [0.6, 0.93]
    (folder / "resque.toml").write_text("[calibration]\ntarget_accuracy = 0.93\n")
    code, out, err = cli(f"{line} --dry-run --json")
    assert (code, json.loads(out)["targets"]) == (0, [0.93, 0.93]), err
