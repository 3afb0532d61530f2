"""Variants of valid inputs: texts, bytes and documents with small faults, for hypothesis."""

import copy
import math

from hypothesis import strategies as st

TOKENS = (
    *("nan", "-inf", "inf", "1e309", "-1", "0", "1e-400", "9" * 400, "2" * 19, "0x10", "١٢", "½", "true", "null", "''"),
    *(
        "\x00",
        "\x1b[31m",
        "\u202e",
        "é",
        "𝔘",
        "\n",
        "\t",
        " ",
        "",
        "..",
        "../../x",
        "/",
        "~",
        "%s",
        "{}",
        "$HOME",
        "\\",
    ),
    *(":", "@", "+", ",", "=", "[", "]", "{", "}", '"', "'", "#", ".py:", "@test", "@8px", "+blur:3", "npz:", "digits"),
)
VALUES = (
    *(
        None,
        True,
        False,
        "",
        "x",
        "nan",
        [],
        {},
        [None],
        {"a": 1},
        [[[]]],
        -1,
        0,
        1,
        2**31,
        2**63,
        -(2**63) - 1,
        10**30,
    ),
    *(0.5, -0.0, 1e308, 5e-324, 1.5, math.nan, math.inf, "\x00", "\x1b[31m"),
)
NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324, 1e-30, 1e30]),
    st.floats(),
    st.integers(-(2**70), 2**70),
)


@st.composite
def texts(draw, valid):
    """A valid text after one to three edits."""
    text = draw(st.sampled_from(valid))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(text)))
        stop = min(len(text), start + draw(st.sampled_from([0, 0, 1, 2, 5, 100])))
        put = draw(st.one_of(st.sampled_from(TOKENS), st.text(max_size=4), st.just(text[start:stop] * 2)))
        text = text[:start] + put + text[stop:]
    return text


@st.composite
def contents(draw, valid):
    """Valid bytes after one to three edits."""
    raw = bytearray(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.one_of(st.integers(0, len(raw)), st.integers(0, min(200, len(raw)))))
        edit = draw(st.sampled_from(["flip", "cut", "end", "put", "extreme"]))
        if edit == "flip" and start < len(raw):
            raw[start] ^= 1 << draw(st.integers(0, 7))
        elif edit == "cut":
            del raw[start : start + draw(st.integers(1, 40))]
        elif edit == "end":
            del raw[start:]
        elif edit == "put":
            raw[start:start] = draw(st.binary(min_size=1, max_size=8))
        else:
            raw[start : start + 4] = draw(
                st.sampled_from([b"\xff" * 4, b"\x00" * 4, b"\x7f\xff\xff\xff", b"\x80\0\0\0"])
            )
    return bytes(raw)


@st.composite
def documents(draw, valid):
    """A valid document with one or two of its values replaced, removed, or a new key."""
    document = copy.deepcopy(draw(st.sampled_from(valid)))
    for _ in range(draw(st.integers(1, 2))):
        place = document
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(place[key], dict | list) and place[key] and draw(st.integers(0, 3)):
                place = place[key]
                continue
            edit = draw(st.sampled_from(["value", "value", "value", "remove", "add"]))
            if edit == "remove":
                del place[key]
            elif edit == "add" and isinstance(place, dict):
                place[draw(st.sampled_from(["", "id", "x", "accuracy"]))] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            else:
                place[key] = copy.deepcopy(draw(st.sampled_from(VALUES)))
            break
    return document
