"""The stopping rule of the paper."""

import math

import numpy as np
import pytest

from resque.errors import SettingError
from resque.training.stopping import stop_epoch


def test_reaching_the_target_precedes_other_rules():
    assert stop_epoch([0.2, 0.9], 0.9) == (2, "target")
    assert stop_epoch([0.895] * 25 + [0.9], 0.9) == (26, "target")


def test_tolerance_rules_count_from_the_first_epoch_within():
    close = [0.1, 0.8951]
    assert stop_epoch(close + [0.1] * 100, 0.9) == (27, "tolerance 0.005")
    near = [0.1, 0.1, 0.8901]
    assert stop_epoch(near + [0.1] * 100, 0.9) == (53, "tolerance 0.01")
    assert stop_epoch([0.1, 0.8901, *[0.1] * 10, 0.8951, *[0.1] * 100], 0.9) == (38, "tolerance 0.005")


def test_rounding_error_counts_as_within_the_tolerance():
    assert 0.95 - 0.945 > 0.005  # as floating point has it
    assert stop_epoch([0.945] + [0.1] * 30, 0.95) == (26, "tolerance 0.005")


def test_maximum_number_of_epochs_ends_a_run():
    assert stop_epoch([0.1] * 250, 0.9) == (250, "max")
    assert stop_epoch([0.1] * 300, 0.9, max_epochs=7) == (7, "max")
    assert stop_epoch([0.1] * 249, 0.9) == (None, None)
    assert stop_epoch([], 0.9) == (None, None)
    assert stop_epoch([float("nan")] * 250, 0.9) == (250, "max")
    with pytest.raises(SettingError):
        stop_epoch([0.1], 0.9, max_epochs=0)


def test_rule_accepts_any_sequence_and_refuses_invalid_settings():
    assert stop_epoch(iter([0.5, 0.91]), 0.9) == stop_epoch(np.array([0.5, 0.91]), 0.9) == (2, "target")
    for nonsense in ({"target": math.nan}, {"tolerances": ((-0.1, 5),)}, {"tolerances": ((0.1, -5),)}):
        with pytest.raises(SettingError):
            stop_epoch([0.5], **{"target": 0.9} | nonsense)
