"""Names of classes: numbered as the model numbers them, or in sorted order with a warning, or refused."""

import dataclasses
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import resque
from resque.data.class_names import number_as
from resque.data.loading import load_data
from resque.errors import DataError, ModelError, ResqueWarning
from resque.models.class_names import class_names_of
from resque.models.networks import small_cnn
from resque.workflows.inputs import InputLoader, ModelOptions

WORDS = st.text(st.characters(codec="utf-8", exclude_characters="\0/"), min_size=1, max_size=6)
X = np.random.default_rng(0).integers(0, 256, (12, 16, 16), dtype=np.uint8)


def named(words, **options):
    """Data whose labels are these words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResqueWarning)
        return load_data((torch.zeros(len(words), 7), words), name="mine", **options)


@given(
    words=st.lists(WORDS, min_size=2, max_size=30).filter(lambda words: len(set(words)) > 1), seed=st.integers(0, 99)
)
def test_words_are_numbered_in_sorted_order_and_then_as_the_model_does(words, seed):
    data = named(words)
    assert data.class_names == tuple(sorted(set(words)))
    assert [data.class_names[label] for label in data.labels.tolist()] == words
    order = np.random.default_rng(seed).permutation([*data.class_names, "\0another"]).tolist()
    aligned = number_as(data, order)
    assert [order[label] for label in aligned.labels.tolist()] == words
    assert aligned.class_names == tuple(order)
    again = number_as(aligned, order)
    assert torch.equal(again.labels, aligned.labels)


@given(words=st.lists(WORDS, min_size=2, max_size=9, unique=True), data=st.data())
def test_names_that_the_model_lacks_are_refused_or_come_after_its_own(words, data):
    known = data.draw(st.lists(st.sampled_from(words), unique=True, max_size=len(words) - 1))
    unknown = sorted(set(words) - set(known))
    with pytest.raises(DataError, match="the model has no class") as error:
        number_as(named(words), known)
    assert repr(unknown[0]) in str(error.value)
    assert "\n" not in str(error.value)
    widened = number_as(named(words), known, extend=True)
    assert widened.class_names == (*known, *unknown)
    assert [widened.class_names[label] for label in widened.labels.tolist()] == words


def test_an_ambiguous_name_is_refused_only_where_it_occurs():
    assert number_as(named(["cat", "dog"]), ("crane", "dog", "crane", "cat")).labels.tolist() == [3, 1]
    with pytest.raises(DataError, match="no class 'crane', or several"):
        number_as(named(["crane", "dog"]), ("crane", "dog", "crane"))


def test_numbering_in_sorted_order_is_said():
    with pytest.warns(ResqueWarning, match=r"mine: .*numbered in sorted order: 'a' = 0, 'b' = 1"):
        load_data((X[:3], ["b", "a", "b"]), name="mine")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data((X[:3], [1, 0, 1]), name="mine")


class Named(nn.Sequential):
    def __init__(self, table):
        super().__init__(*[*small_cnn()][:-1], nn.Linear(64, 3))
        self.id2label = table


class Configured(Named):
    def __init__(self, table):
        super().__init__(None)
        self.config = type("Config", (), {"id2label": table})()


TABLES = [{0: "emu", 1: "cat", 2: "dog"}, {"2": "dog", "0": "emu", "1": "cat"}, ["emu", "cat", "dog"]]


@pytest.mark.parametrize("kind", [Named, Configured])
@pytest.mark.parametrize("table", TABLES)
def test_a_model_may_name_its_classes(kind, table):
    assert class_names_of(kind(table)) == ("emu", "cat", "dog")


@pytest.mark.parametrize("table", [None, {}, {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"}])
def test_a_model_without_names_has_none(table):
    assert class_names_of(Named(table)) == ()
    assert class_names_of(small_cnn()) == ()


@pytest.mark.parametrize(
    "table", [{1: "a", 2: "b"}, {"x": "a"}, {0: 1, 1: 2}, 3, "ab", {0: "a", "0": "b"}, [None], {None: "a"}]
)
def test_a_table_that_is_none_is_refused(table):
    with pytest.raises(ModelError, match=r"id2label .*expected \{0: 'NAME', …\}"):
        class_names_of(Named(table))


def write_folder(folder, names, seed=0):
    from PIL import Image

    rng = np.random.default_rng(seed)
    for at, name in enumerate(names):
        place = folder / f"{seed}" / name
        place.mkdir(parents=True)
        for i in range(4):
            Image.fromarray(rng.integers(0, 256, (16, 16), dtype=np.uint8) // 2 + 60 * at % 128).save(
                place / f"{i}.png"
            )
    return f"folder:{folder}/{seed}"


MODEL = """
from torch import nn
from resque.models.networks import small_cnn

def build(num_classes=3):
    model = nn.Sequential(*[*small_cnn()][:-1], nn.Linear(64, num_classes))
    if num_classes == 3:
        model.id2label = {0: "emu", 1: "cat", 2: "dog"}
    return model
"""


@pytest.mark.parametrize("as_object", [False, True])
def test_a_shift_follows_the_names_of_the_model(folder, as_object):
    (folder / "net.py").write_text(MODEL)
    model = Named(TABLES[0]) if as_object else "net.py:build"
    loader = InputLoader(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data = loader.data(write_folder(folder, ["cat", "dog", "emu"]))
        part = loader.data(write_folder(folder, ["dog", "emu"], seed=1))
        mixed = loader.data(f"folder:{folder}/0~folder:{folder}/1")
    assert data.labels.tolist() == [1] * 4 + [2] * 4 + [0] * 4
    assert part.labels.tolist() == [2] * 4 + [0] * 4
    assert mixed.classes == [0, 1, 2]
    with pytest.raises(DataError, match="no class 'eel'.*'emu', 'cat', 'dog'"):
        loader.data(write_folder(folder, ["dog", "eel"], seed=2))
    with pytest.warns(ResqueWarning, match="sorted order"):
        assert InputLoader(model, change="new task").data(f"folder:{folder}/2").classes == [0, 1]
    extended = InputLoader(model, change="extension").data(f"folder:{folder}/2")
    assert (extended.classes, extended.class_names[3]) == ([2, 3], "eel")


def test_a_profile_follows_the_names_and_pseudo_labels_need_none(folder):
    model = Named(TABLES[0])
    loader = InputLoader(model)
    found = loader.original_profile(model, write_folder(folder, ["dog", "cat"]))
    assert found.counts == {1: 4, 2: 4}
    unknown = loader.data(write_folder(folder, ["eel", "owl"], seed=1), for_training=False)
    assert loader.profile(model, unknown, None, None, "pseudo").n == 8
    with pytest.raises(DataError, match="no class 'eel', 'owl'"):
        loader.profile(model, unknown, None, None)


def test_another_number_of_outputs_has_no_names(folder):
    (folder / "net.py").write_text(MODEL)
    loader = InputLoader("net.py:build", ModelOptions(classes=2))
    with pytest.warns(ResqueWarning, match="sorted order"):
        assert loader.data(write_folder(folder, ["eel", "owl"])).classes == [0, 1]


def test_a_forecast_takes_train_and_test_of_different_names(folder):
    """Both are numbered by the model, so a test of fewer classes is no other numbering."""
    job = InputLoader(Named(TABLES[0])).job(
        write_folder(folder, ["cat", "dog", "emu"]), write_folder(folder, ["dog", "emu"], 1), 0.9, resque.Recipe()
    )
    assert (job.train.classes, job.test.classes) == ([0, 1, 2], [0, 2])


def test_original_test_data_of_another_numbering_are_refused():
    data, other = named(["a", "b", "a"]), named(["a", "c", "c"])
    with pytest.raises(DataError, match="number the classes differently"):
        resque.RetrainingJob(data, data, 0.9, original_test=other)
    resque.RetrainingJob(data, data, 0.9, original_test=dataclasses.replace(other, class_names=()))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0.0, 1.0, 2.0] * 4, "labels are torch.float64; expected integers"),
        (np.eye(3)[[0, 1, 2] * 4], "labels are torch.float64; expected integers"),
        (np.eye(3, dtype=int)[[0, 1, 2] * 4], "labels have shape .*one-hot: argmax"),
        ([0, None, 2] * 4, "4 of 12 labels are missing"),
        (["a", None, "b"] * 4, "4 of 12 labels are missing"),
        ([None] * 12, "12 of 12 labels are missing"),
        (["a", 1, "b"] * 4, "labels are of several types: int, str"),
        ([b"a", b"b"] * 6, "labels"),
        ([True, False] * 6, "labels are torch.bool"),
        ([0, float("nan"), 1] * 4, "labels are torch.float64"),
        ([{}] * 12, "labels"),
        (np.array(["a", "b"] * 5), r"labels have shape \(10,\); expected \(12,\)"),
        (np.array([["a"], ["b"]] * 6), r"labels have shape \(12, 1\); expected one"),
    ],
)
def test_other_labels_are_refused_in_one_line(labels, message):
    with pytest.raises(DataError, match=message) as error:
        load_data((X, labels))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [list, np.array, lambda words: np.array(words, dtype=object)])
def test_words_of_every_container_are_names(kind):
    with pytest.warns(ResqueWarning, match="sorted order"):
        assert load_data((X, kind(["b", "a", "c"] * 4))).labels.tolist() == [1, 0, 2] * 4
