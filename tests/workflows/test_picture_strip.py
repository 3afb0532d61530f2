"""A few inputs before and after a shift: drawn small, kept beside the ledger, shown in the report."""

import base64
import dataclasses
import io
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from doubles import settled_pairs
from resque.data.dataset import LabeledDataset
from resque.data.loading import load_data
from resque.errors import DataError
from resque.ledger.store import Ledger
from resque.reporting.pictures import kept_strip
from resque.workflows.picture_strip import draw_strip, keep_strip


def data_of(labels, shape=(1, 8, 8), name="npz:/some/folder/new.npz", kind="uint8", first=0, labeled=True):
    n = len(labels)
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8))
    if kind != "uint8":
        images = images / 255.0 if kind == "unit" else images / 30.0 - 3.0
    indices = torch.arange(first, first + n)
    return LabeledDataset(name, images, torch.tensor(labels), indices, labeled=labeled)


def tiles_of(content):
    """Columns and rows of the tiles, and the mean color of each."""
    with Image.open(io.BytesIO(content)) as picture:
        pixels = np.asarray(picture.convert("RGBA")).astype(float)
    columns, rows = (pixels.shape[1] + 4) // 44, (pixels.shape[0] + 4) // 44
    assert pixels.shape[:2] == (44 * rows - 4, 44 * columns - 4)
    assert all((pixels[:, 44 * column - 4 : 44 * column, 3] == 0).all() for column in range(1, columns))
    return [[pixels[44 * r : 44 * r + 40, 44 * c : 44 * c + 40] for c in range(columns)] for r in range(rows)]


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=30),
    st.sampled_from([(1, 8, 8), (3, 8, 8), (3, 224, 224), (1, 28, 36), (2, 5, 5), (4, 64, 64), (3, 1, 1)]),
    st.sampled_from(["uint8", "unit", "normalized"]),
    st.booleans(),
    st.booleans(),
)
def test_strip_is_small_and_has_at_most_six_pairs(labels, shape, kind, labeled, has_original):
    new = data_of(labels, shape, kind=kind, labeled=labeled)
    content = draw_strip(new, data_of(labels, shape, "npz:old.npz") if has_original else None)
    tiles = tiles_of(content)
    assert len(content) < 16_000
    assert len(tiles) == 1 + has_original
    assert len(tiles[0]) == min(6, len({*labels}) if labeled else len(labels))
    assert all((tile[..., 3] == 255).all() for row in tiles for tile in row)


@pytest.mark.parametrize("side", [8, 32])
def test_same_sample_is_above_its_shifted_one(side):
    """A shift that changes nothing shows the same tiles twice; one that darkens, darker ones below."""
    original = load_data(f"digits@{side}px@train")
    for level, is_darker in (("none", False), ("brightness:9", True)):
        new = original if level == "none" else load_data(f"digits@{side}px@train+{level}")
        above, below = tiles_of(draw_strip(new, original))
        means = [(one[..., :3].mean(), other[..., :3].mean()) for one, other in zip(above, below, strict=True)]
        assert all(abs(one - other) > 10.0 if is_darker else one == other for one, other in means)


@given(st.permutations(list(range(8)) * 2), st.permutations(list(range(8)) * 2))
def test_pairs_are_of_one_class(labels, others):
    """A class is a gray value here."""

    def flat(labels, first):
        data = data_of(labels, first=first)
        gray = data.labels.to(torch.uint8)[:, None, None, None] * 30
        return dataclasses.replace(data, inputs=gray.expand(-1, 1, 8, 8).contiguous())

    above, below = tiles_of(draw_strip(flat(labels, 0), flat(others, 5)))
    assert [tile[..., 0].mean() for tile in above] == pytest.approx([tile[..., 0].mean() for tile in below], abs=6.0)


@pytest.mark.parametrize(
    ("new", "original"),
    [
        (data_of([0, 1], shape=(7,)), None),
        (dataclasses.replace(data_of([0, 1]), inputs={"input_ids": torch.ones(2, 5, dtype=torch.int64)}), None),
        (data_of([0, 1]), data_of([0, 1], shape=(7,))),
        (data_of([0, 1]), data_of([5, 6])),
    ],
)
def test_what_is_no_image_or_has_no_counterpart_is_skipped(folder, new, original):
    with pytest.raises(DataError):
        draw_strip(new, original)
    keep_strip(Ledger("l.db"), new, original)
    assert not (folder / "l.db.pictures").exists()


def test_newest_forecast_that_has_a_strip_is_shown(folder):
    ledger, made = Ledger("l.db"), [pair[0] for pair in settled_pairs(3)]
    assert kept_strip(ledger, made) is None
    for forecast, width in zip(made[:2], (1, 2), strict=True):
        keep_strip(ledger, data_of(list(range(width)), name=forecast.train_data), None)
    assert kept_strip(ledger, made).width == 84
    assert kept_strip(ledger, made[:1]).width == 40
    for content in (b"", b"\x89PNG\r\n\x1a\n", b"GIF89a" + bytes(30), b"\0" * 500):
        ledger.picture_file(made[1].train_data).write_bytes(content)
        assert kept_strip(ledger, made).width == 40


def test_a_picture_that_cannot_be_kept_fails_nothing(folder):
    (folder / "l.db.pictures").write_text("a file")
    keep_strip(Ledger("l.db"), data_of([0, 1]), None)


@pytest.mark.usefixtures("short_history")
@pytest.mark.parametrize("original", ["data", "profile", "none"])
def test_forecast_keeps_the_strip_that_the_report_shows(cli, folder, trained, original):
    model = f"--model {trained[0]}:build --weights {trained[1]}"
    clean, rows = "digits@train@original", 1 + (original == "data")
    if original == "profile":
        assert cli(f"profile {model} --data {clean} --out p.safetensors")[0] == 0
    before = {"data": f"--original {clean}", "profile": "--original p.safetensors", "none": ""}[original]
    line = f"forecast {model} {before} --shifted digits@train@shifted+blur:5 --test digits@test+blur:5"
    code, _, err = cli(f"{line} --target-accuracy 0.97 --recipe retrain-adam,max_epochs=2")
    assert code in (0, 4), err
    assert cli("report")[0] == 0
    page = (folder / "report.html").read_text()
    alt, content = re.search(
        r'<img class="strip" [^>]*src="data:image/png;base64,([^"]+)".*?alt="([^"]+)"', page
    ).groups()[::-1]
    assert len(tiles_of(base64.b64decode(content))) == rows
    assert alt.startswith("6 inputs of digits@train@shifted+blur:5")
    assert ("each below one of digits@train@original" in alt) == (original == "data")
    assert cli("report --no-inputs")[0] == 0
    assert "image/png" not in (folder / "report.html").read_text()
