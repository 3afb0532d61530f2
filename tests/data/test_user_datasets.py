"""Datasets of the user that raise, lie about their length, or return other things than pairs: one line each."""

import pytest
import torch

from resque.data.loading import load_data
from resque.errors import DataError

COMMON = """
import sys
from collections.abc import Mapping
import numpy as np
import torch
from PIL import Image

class Ended(BaseException):
    pass

class Mute(Exception):
    def __str__(self):
        raise ValueError("no text")

class Map(torch.utils.data.Dataset):
    length = 6
    def __len__(self):
        return self.length
    def __getitem__(self, i):
        if i >= 6:
            raise IndexError(i)
        return torch.ones(2) * i, i % 2

class Stream(torch.utils.data.IterableDataset):
    length = 6
    def __len__(self):
        return self.length
    def __iter__(self):
        return iter([(torch.ones(2) * i, i % 2) for i in range(6)])
"""


def written(folder, code):
    (folder / "mine.py").write_text(f"{COMMON}\n{code}\n")
    return "mine.py:make"


def refused(spec, *words):
    with pytest.raises(DataError) as error:
        load_data(spec)
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in ("mine.py", *words):
        assert word in text
    return text


ERRORS = [
    "KeyError('x')",
    "SystemExit(3)",
    "SystemExit('bye')",
    "RuntimeError('a\\nb')",
    "StopIteration()",
    "MemoryError()",
    "GeneratorExit()",
    "Ended('own')",
    "Mute()",
]


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("place", ["__len__", "__getitem__", "__iter__", "next", "call", "import", "pixels"])
def test_what_a_dataset_raises_is_one_line(folder, error, place):
    code = {
        "__len__": f"class Own(Map):\n  def __len__(self): raise {error}\ndef make(): return Own()",
        "__getitem__": f"class Own(Map):\n  def __getitem__(self, i):\n    if i == 4: raise {error}\n"
        "    return super().__getitem__(i)\ndef make(): return Own()",
        "__iter__": f"class Own(Stream):\n  def __iter__(self): raise {error}\ndef make(): return Own()",
        "next": f"def make():\n  yield torch.ones(2), 0\n  raise {error}",
        "call": f"def make(): raise {error}",
        "import": f"raise {error}\ndef make(): pass",
        "pixels": f"class Lazy:\n  def __len__(self): raise {error}\n  shape = width = property(__len__)\n"
        "  __array__ = __len__\n  __getitem__ = __len__\n  __iter__ = __len__\n  convert = __len__\n"
        "def make(): return [(Lazy(), 0), (Lazy(), 1)]",
    }[place]
    name = error.split("(")[0]
    text = refused(written(folder, code))
    assert name in text or name == "StopIteration"  # which ends what is iterated over, or becomes a RuntimeError


@pytest.mark.parametrize("length", [7, 100, 2**40, 2**62])
def test_a_dataset_that_has_fewer_samples_than_it_says_is_refused(folder, length):
    refused(
        written(folder, f"def make():\n  Map.length = {length}\n  return Map()"),
        "sample 6",
        "IndexError",
        f"{length:,}",
    )
    refused(written(folder, f"def make():\n  Stream.length = {length}\n  return Stream()"), "6", f"{length:,}")


@pytest.mark.parametrize("length", [1, 5])
def test_a_stream_that_has_more_samples_than_it_says_is_refused(folder, length):
    refused(written(folder, f"def make():\n  Stream.length = {length}\n  return Stream()"), f"{length:,}", "more")


@pytest.mark.parametrize("length", ["-1", "2.5", "'6'", "None", "2**70", "float('inf')"])
def test_a_length_that_is_no_count_is_refused(folder, length):
    refused(written(folder, f"def make():\n  Map.length = {length}\n  return Map()"), "length")


def test_a_limit_ends_a_stream_that_says_more(folder):
    spec = written(folder, "def make():\n  return Stream()")
    assert len(load_data(spec, limit=4)) == 4
    assert len(load_data(spec)) == 6
    endless = written(folder, "def make():\n  i = 0\n  while True:\n    yield torch.ones(2), i % 2\n    i += 1")
    assert len(load_data(endless, limit=5)) == 5


THINGS = {
    "None": "NoneType", "3": "int", "'ab'": "str", "b'ab'": "bytes", "torch.ones(2)": "Tensor", "{0: 1, 1: 2}": "dict",
    "(1, 2, 3)": "tuple", "(torch.ones(2),)": "tuple", "np.ones(2)": "ndarray", "{'x': 1, 'y': 2}": "dict",
}  # fmt: skip


@pytest.mark.parametrize("thing", THINGS)
@pytest.mark.parametrize("at", [0, 3])
def test_samples_that_are_no_pairs_are_refused(folder, thing, at):
    code = f"def make():\n  good = [(torch.ones(2), i % 2) for i in range(5)]\n  good[{at}] = {thing}\n  return good"
    refused(written(folder, code), f"sample {at}", THINGS[thing], "expected a pair (x, y)")


@pytest.mark.parametrize(
    "thing", ["None", "3", "'ab'", "torch.ones(2)", "Map", "Image.new('L', (3, 3))", "object()", "{}"]
)
def test_results_that_are_no_datasets_are_refused(folder, thing):
    refused(written(folder, f"def make(): return {thing}"))


INPUTS = [
    "torch.ones(2)", "torch.ones(3)", "np.ones((2, 2))", "np.ones((4, 4, 3), np.uint8)", "np.ones((4, 4), np.uint8)",
    "'text'", "{'ids': torch.ones(2)}", "{'other': torch.ones(2)}", "None", "object()", "[1, [2]]",
    "Image.new('L', (4, 4))", "np.array(['a', 'b'])", "{}", "np.ones((2, 4, 4, 3), np.uint8)",
]  # fmt: skip


@pytest.mark.parametrize("one", INPUTS)
def test_inputs_of_two_kinds_are_refused_or_put_together(folder, one):
    others = [other for other in INPUTS if other != one]
    functions = [f"def make{i}(): return [({one}, 0), ({x}, 1), ({one}, 0)]" for i, x in enumerate(others)]
    spec, refusals = written(folder, "\n".join(functions)), []
    for i in range(len(others)):
        try:
            data = load_data(f"{spec}{i}")
        except DataError as error:
            refusals.append(str(error))
        else:
            assert isinstance(data.inputs, torch.Tensor)
            assert data.inputs.shape[0] == 3
    assert len(refusals) >= len(others) - 3
    assert not any("\n" in text or len(text) > 500 for text in refusals)


@pytest.mark.parametrize("dtype", ["uint16", "int16", "int32", "uint32", "int64"])
@pytest.mark.parametrize("shape", ["(6, 5)", "(6, 5, 3)"])
def test_integer_pictures_of_more_than_8_bits_are_refused(folder, dtype, shape):
    code = f"def make(): return [(np.full({shape}, 300, np.{dtype}), i % 2) for i in range(4)]"
    refused(written(folder, code), dtype, "expected uint8")


def test_a_picture_of_the_user_is_refused_by_its_place(folder):
    code = "def make(): return [(Image.new('L', (4, 4)), 0), (Image.new('RGBA', (4, 4)), 1)]"
    refused(written(folder, code), "sample 1", "transparent pixels")


@pytest.mark.parametrize("step", ["@4px", "+gaussian:3"])
@pytest.mark.parametrize("low", [-1.0, 0.0])
def test_steps_refuse_images_that_are_normalized_already(folder, step, low):
    code = f"def make(): return [(torch.linspace({low}, 2.0, 64).reshape(1, 8, 8), i % 2) for i in range(4)]"
    spec = written(folder, code)
    assert float(load_data(spec).images.max()) == 2.0
    refused(spec + step, f"from {low:g} to 2", "[0, 1]")
