"""Strategies of hypothesis: damaged bytes, edited trees of plain values, and unlikely values."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator, Sequence
from typing import Any

from hypothesis import strategies as st

# None lies between what is quick to compute and what no machine holds.
INTEGERS = (0, 1, 2, 3, 7, -1, -(2**31), 2**31, 2**32, 2**48, 2**63 - 1, 2**63, -(2**63), 10**20)
NUMBERS = ("0", "1", "0.5", "2", "-1", "nan", "inf", "-inf", "1e308", "-1e308", "1e20", "1e-320")
TEXTS = (
    *(
        "",
        " ",
        "\n",
        "\0",
        "a\0b",
        "\x1b[31m",
        "\u202e",
        "é",
        "\U0001f600",
        "-",
        "--",
        "=",
        ":",
        ",",
    ),
    *(
        "null",
        "true",
        "nan",
        "~",
        "{}",
        "[]",
        "*a",
        "&a",
        "%s",
        "${x}",
        "..",
        ".",
        "/",
        "/dev/null",
    ),
    *("no such file", "x" * 300, "x" * 5000, "note.txt", "fox.txt", "image.png", "rnn.ckpt"),
)
PLAIN: tuple[Any, ...] = (
    None,
    True,
    False,
    *INTEGERS,
    float("nan"),
    float("inf"),
    -0.5,
    1e308,
    *TEXTS,
    [],
    {},
    [[]],
)

numbers = st.sampled_from(INTEGERS).map(str) | st.sampled_from(NUMBERS)
SEEDS = st.integers(0, 2**32).map(random.Random)

texts = st.sampled_from(TEXTS) | st.text(max_size=8)
plain = st.sampled_from(PLAIN) | st.text(max_size=8) | st.integers(-9, 9)


@st.composite
def damaged(draw: Any, originals: Sequence[bytes]) -> bytes:
    """An intact content in which bytes are flipped, set, cut, inserted or repeated."""
    content = bytearray(draw(st.sampled_from(originals)))
    noise = draw(
        SEEDS
    )  # hypothesis itself prefers small numbers, which are places near the beginning
    for _ in range(draw(st.integers(1, 4))):
        at = noise.randrange(max(1, len(content)))
        kind = draw(st.sampled_from(("flip", "number", "cut", "end", "insert", "repeat")))
        if kind == "flip" and content:
            content[at] ^= 1 << noise.randrange(8)
        elif kind == "number":
            size = noise.choice((1, 2, 4, 8))
            value = noise.choice((0, 1, 2 ** (8 * size) - 1, 2 ** (8 * size - 1)))
            content[at : at + size] = value.to_bytes(size, noise.choice(("big", "little")))
        elif kind == "cut":
            del content[at : at + noise.randint(1, 64)]
        elif kind == "end":
            del content[at:]
        elif kind == "insert":
            content[at:at] = draw(st.binary(max_size=16))
        elif kind == "repeat":
            content[at:at] = content[at : at + 64] * noise.choice((1, 10, 1000))
    return bytes(content)


@st.composite
def edited(draw: Any, originals: Sequence[Any], values: st.SearchStrategy = plain) -> Any:
    """A tree of dictionaries and lists in which entries are replaced, removed, renamed or nested."""
    tree = copy.deepcopy(draw(st.sampled_from(originals)))
    noise = draw(SEEDS)
    for _ in range(draw(st.integers(1, 3))):
        places = list(_places(tree))
        if not places:
            break
        node, key = noise.choice(places)
        kind = draw(st.sampled_from(("replace", "replace", "remove", "rename", "nest")))
        if kind == "replace":
            node[key] = draw(values)
        elif kind == "remove":
            del node[key]
        elif kind == "rename" and isinstance(node, dict):
            node[draw(st.text(max_size=6))] = node.pop(key)
        else:
            for _ in range(noise.choice((1, 3, 200))):
                node[key] = [node[key]]
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """Each entry of a tree: what holds it, and its key."""
    keys = (
        list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    )
    for key in keys:
        yield tree, key
        yield from _places(tree[key])
