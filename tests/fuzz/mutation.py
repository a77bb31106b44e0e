"""Damage that files come with: bytes that are others, lines and words that are, values that are."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

#: What a reader may take for a size, a number, a name or a path, and should not.
WORDS = (
    *("", "0", "-1", "1", "2", "999999999", "10000000000000000000000", "1e308", "-1e400", "1e-320"),
    *(
        "nan",
        "inf",
        "-inf",
        "None",
        "null",
        "true",
        "T",
        "0x10",
        "1_000",
        "1D5",
        "٣",
        "½",
        "é",
        "\0",
    ),
    *("../../../etc/passwd", "/dev/zero", "$x^{2", "=1+1", "[", "]", "{", "}", '"', "'", "\\", ":"),
    *('Lattice="0 0 0 0 0 0 0 0 0"', 'Lattice="1e-9 0 0 0 1 0 0 0 1"', "Properties=species:S:1"),
    *(
        'pbc="T T T"',
        "energy=-10.0 eV",
        "VEC1 0 0 0",
        "\ud83d",
        "\u202e",
        "a" * 10_000,
        "[" * 2_000,
    ),
)
#: The same for JSON and settings.
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 3, 2**31, 10**9, 10**30, 0.5, -2.5, 1e308, float("nan")),
    *(float("inf"), "", "x", "0", "os.system", "\ud83d", "é" * 99, [], {}, [[]], [None], {"a": 1}),
    *([1] * 999, ["EGNN"], {"": {}}, [{}], "1e9", "../x", "${oc.env:HOME}"),
)


@st.composite
def damaged_bytes(draw: st.DrawFn, whole: bytes) -> bytes:
    """A file with bits flipped, bytes overwritten, parts cut out, doubled or exchanged."""
    content = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(content) - 1)))
        length = draw(st.sampled_from((1, 2, 4, 8, 64, 1024)))
        how = draw(st.sampled_from(("flip", "write", "cut", "double", "end", "zero", "move")))
        piece = content[place : place + length]
        if how == "flip" and content:
            content[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "write":
            content[place : place + length] = draw(st.binary(max_size=length))
        elif how == "cut":
            del content[place : place + length]
        elif how == "double":
            content[place:place] = piece
        elif how == "end":
            del content[place:]
        elif how == "zero":
            content[place : place + length] = bytes(len(piece))
        else:
            del content[place : place + length]
            content[(to := draw(st.integers(0, len(content)))) : to] = piece
    return bytes(content)


@st.composite
def damaged_text(draw: st.DrawFn, whole: str) -> bytes:
    """A text with lines and words that are others, gone, doubled or exchanged."""
    lines = [line.split(" ") for line in whole.split("\n")]
    for _ in range(draw(st.integers(1, 3))):
        line = lines[k := draw(st.integers(0, len(lines) - 1))]
        how = draw(st.sampled_from(("word", "word", "word", "drop", "add", "line", "swap", "glue")))
        i = draw(st.integers(0, len(line) - 1)) if line else 0
        if how == "word" and line:
            line[i] = draw(st.sampled_from(WORDS))
        elif how == "drop":
            del line[i : i + 1]
        elif how == "add":
            line.insert(i, draw(st.sampled_from(WORDS) | st.text(max_size=8)))
        elif how == "line":
            lines[k : k + draw(st.integers(0, 2))] = [line] * draw(st.integers(0, 2))
        elif how == "swap":
            other = draw(st.integers(0, len(lines) - 1))
            lines[k], lines[other] = lines[other], lines[k]
        elif line:  # a value behind its name: energy=x
            line[i] = f"{line[i].partition('=')[0]}={draw(st.sampled_from(WORDS))}"
        lines = lines or [[""]]
    return "\n".join(" ".join(line) for line in lines).encode("utf-8", "replace")


@st.composite
def damaged_json(draw: st.DrawFn, whole: Any) -> Any:
    """A structure of dicts and lists in which entries are others, gone, doubled or renamed."""
    whole = copy.deepcopy(whole)
    for _ in range(draw(st.integers(1, 3))):
        node, last = [whole], 0
        here: Any = whole
        for _ in range(draw(st.integers(0, 7))):
            if not isinstance(here, dict | list) or not here:
                break
            keys = list(here) if isinstance(here, dict) else list(range(len(here)))
            node, last = here, keys[draw(st.integers(0, len(keys) - 1))]  # type: ignore[assignment]
            here = here[last]
        how = draw(st.sampled_from(("value", "value", "value", "gone", "number", "wrap", "name")))
        if node == [whole] and how != "value":
            continue
        if how == "gone":
            del node[last]
        elif how == "number" and isinstance(here, int | float):
            node[last] = draw(st.sampled_from((-here, here + 1, here * 1000, str(here), [here])))
        elif how == "wrap":
            node[last] = draw(st.sampled_from(([here], {"x": here}, [here, here])))
        elif how == "name" and isinstance(node, dict):
            node[draw(st.sampled_from(("", "x", "class", "scale")))] = node.pop(last)
        elif node == [whole]:
            whole = copy.deepcopy(draw(st.sampled_from(VALUES)))
        else:
            node[last] = copy.deepcopy(draw(st.sampled_from(VALUES)))  # it may be changed next
    return whole


def as_text(content: Any) -> bytes:
    """JSON as Python writes it, with NaN and with halves of surrogate pairs."""
    return json.dumps(content).encode("utf-8", "surrogatepass")
