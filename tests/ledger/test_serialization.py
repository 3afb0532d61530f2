import dataclasses
import json
import math
from collections.abc import Mapping
from pathlib import PosixPath
from typing import Any

import numpy as np
import pytest

from doubles import synthetic_update
from resque.energy.grid import Grid
from resque.energy.price import Tariff
from resque.errors import SettingError
from resque.ledger.records import Estimate, Features, Update
from resque.ledger.serialization import decode, encode, from_dict, from_dict_strict, to_dict
from resque.training.recipe import Recipe
from resque.types import Interval


@dataclasses.dataclass(frozen=True)
class Sample:
    counts: Mapping[int, float | None]
    pairs: tuple[tuple[float, int], ...]
    extra: Any = None


def through_json(record):
    return from_dict(type(record), json.loads(json.dumps(to_dict(record))))


def test_integer_keys_and_nested_tuples_come_back():
    sample = Sample({3: 0.5, -1: None}, ((0.005, 25), (0.01, 50)))
    assert to_dict(sample) == {"counts": {3: 0.5, -1: None}, "pairs": [[0.005, 25], [0.01, 50]], "extra": None}
    assert through_json(sample) == from_dict(Sample, to_dict(sample)) == decode(Sample, encode(sample)) == sample


def test_numpy_scalars_become_plain_numbers():
    sample = Sample({np.int64(3): np.float64(math.nan)}, ((np.float64(0.1), np.int64(2)),), np.bool_(True))
    assert json.dumps(to_dict(sample)) == '{"counts": {"3": null}, "pairs": [[0.1, 2]], "extra": true}'


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_number_that_is_not_finite_comes_back_as_none(number):
    features = Features(number, 0.5, number, scores={"LogME": number, "loss": 0.25})
    assert from_dict(Features, to_dict(features)).scores == {"LogME": None, "loss": 0.25}
    assert decode(Features, encode(features)) == Features(None, 0.5, None, scores={"LogME": None, "loss": 0.25})
    estimate = Estimate(number, Interval(number, number, 0.8, "none"), number)
    assert decode(Estimate, encode(estimate)) == Estimate(None, Interval(None, None, 0.8, "none"), None)
    assert from_dict_strict(Estimate, to_dict(estimate)) == decode(Estimate, encode(estimate))


def test_subclasses_of_built_in_types_are_stored_as_these_and_other_objects_are_refused():
    class Version(str):
        pass

    assert type(to_dict(Sample({}, (), Version("2.11")))["extra"]) is str
    assert to_dict(Sample({}, (), PosixPath("x")))["extra"] == "x"
    with pytest.raises(TypeError, match="is a complex, which has no place in JSON"):
        to_dict(Sample({}, (), 1j))


def test_unknown_keys_are_ignored_on_every_level():
    update = synthetic_update("a", index=0.1, steps=40)
    plain = to_dict(update) | {"hue": 1}
    plain["features"]["hue"] = {"of": "newer versions"}
    assert from_dict(Update, plain) == decode(Update, json.dumps(plain)) == update


def test_whole_floats_are_read_as_integers():
    plain = to_dict(synthetic_update("a", index=0.1, steps=40))
    steps = from_dict(Update, plain | {"seed": 7.0}).seed
    assert (steps, type(steps)) == (7, int)
    with pytest.raises(ValueError, match=r"seed is 7\.0, expected `int \| null`"):
        from_dict_strict(Update, plain | {"seed": 7.0})


@pytest.mark.parametrize("text", ["\ud800", "é × 名", 'a "quote"'])
def test_any_text_and_any_integer_survive(text):
    update = dataclasses.replace(synthetic_update("a", index=0.1, steps=40), model=text, seed=10**40)
    assert encode(update).isascii()
    assert decode(Update, encode(update)) == update


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": True}, "seed is True, expected `int | null`"),
        ({"reached": 1}, "reached is 1, expected `bool`"),
        ({"grid": {"region": "FRA", "source": "given"}}, "grid has no 'intensity_g_per_kwh'"),
        ({"host": {"device": "cpu", "cores": 4}}, "host.cores is 4, expected `str`"),
        ({"features": []}, r"features is \[\], expected `object`"),
        ({"shift_type": 3}, "shift_type is 3, expected `str | null`"),
    ],
)
def test_wrong_value_is_named_with_its_field_and_what_was_expected(change, message):
    plain = to_dict(synthetic_update("a", index=0.1, steps=40)) | change
    with pytest.raises(ValueError, match=message.replace("|", r"\|")):
        from_dict_strict(Update, plain)


def test_wrong_value_in_a_list_of_records_is_named():
    interval = {"low": 1.0, "high": 2.0, "level": 0.8, "guarantee": ""}
    estimate = {"value": 1.0, "interval": interval, "upper": None}
    revision = {"step": 1, "accuracy": 0.5, "steps": estimate, "probability_reached": 0.9, "n_history": 3}
    broken = revision | {"steps": estimate | {"interval": interval | {"level": "high"}}}
    plain = to_dict(synthetic_update("a", index=0.1, steps=40)) | {"revisions": [revision, broken]}
    with pytest.raises(ValueError, match=r"revisions\[1\]\.steps\.interval\.level is 'high', expected `float`"):
        from_dict_strict(Update, plain)
    with pytest.raises(ValueError, match="it is 3, expected `object`"):
        from_dict_strict(Update, 3)


def test_error_of_the_record_itself_keeps_its_type():
    with pytest.raises(SettingError, match="learning_rate is -1"):
        from_dict(Recipe, {"learning_rate": -1.0})


def test_every_part_of_a_record_has_a_dictionary_of_its_own():
    update = synthetic_update("a", index=0.1, steps=40)
    plain = update.to_dict()
    assert plain == to_dict(update)
    for name in ("features", "curve", "cost", "energy"):
        assert getattr(update, name).to_dict() == plain[name]
    for record in (Grid("FRA", 44.0, "given"), Tariff(0.2), Estimate(1.0, Interval(0.5, 2.0, 0.8, "none"))):
        assert from_dict(type(record), record.to_dict()) == record
