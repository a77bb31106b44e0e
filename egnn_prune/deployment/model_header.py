"""The JSON in the header of a model file: read with suspicion, for anybody may have written it."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from egnn_prune.system.bounded import AsksForTooMuch, Bounded
from egnn_prune.system.memory_limit import gigabytes

#: The entry that holds :func:`checksum`; files written before there was one lack it.
CHECKSUM = "sha256"
#: Of weights.
PRECISIONS = ("float64", "float32", "bfloat16", "float16")
#: Names that safetensors has for what the tensors of our models hold.
TENSOR_KINDS = {"F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "BOOL"}
#: Of one file. The largest potential that we know has 1,500.
MOST_TENSORS = 100_000
#: Levels of the JSON. Ours has fifteen: members of a committee, layers, widths and their lists.
DEEPEST = 64
#: MC-dropout samples that a file may ask of every prediction, and members of one read-out.
MOST_SAMPLES = 1_000
#: Numbers that building a model may ask for: some for its constants, and these for every weight.
ALLOWANCE, NUMBERS_PER_WEIGHT = 50_000_000, 16


def checksum(header: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of everything in a model file but itself.

    Args:
        header: what the JSON says.
        tensors: on the CPU, by name.
    """
    said = {key: value for key, value in header.items() if key != CHECKSUM}
    said = json.loads(json.dumps(said))  # a file knows no tuples
    found = hashlib.sha256(json.dumps(said, sort_keys=True).encode())
    for name in sorted(tensors):
        value = tensors[name].contiguous()
        found.update(f"\0{name} {value.dtype} {list(value.shape)}\0".encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def complaint(header: Mapping[str, Any]) -> str:
    """Why a header is not one of this package's models; empty where it is."""
    if _depth(header) > DEEPEST:
        return f"it is nested more than {DEEPEST} levels deep"
    for entry, kind in (("architecture", dict), ("held", list), ("metadata", dict)):
        if not isinstance(header.get(entry), kind):
            return f"{entry} is missing or has the wrong form"
    for key in ("estimator", "units", "validation_epistemic_std", "validation_doubt"):
        place = header if key == "estimator" else header["metadata"]
        if not isinstance(place.get(key, {}), dict):
            return f"{key} has the wrong form"
        limit = place.get(key, {}).get("q99")
        if key.startswith("validation") and limit is not None and not _is_number(limit):
            return f"{key}.q99 is no number"
    if header.get("dtype") not in PRECISIONS:
        return f"its precision is {header.get('dtype')!r}, none of {', '.join(PRECISIONS)}"
    for place, value in _nodes(header["architecture"], "architecture"):
        if place.endswith(".scale") and isinstance(value, dict):
            numbers = (value.get("shift", 1.0), value.get("scale"))
            if not all(map(_is_number, numbers)) or not value["scale"]:
                return "the scale of its target is no number, or zero"
        elif _is_number(value):
            finite = not isinstance(value, float) or math.isfinite(value)
            if not finite or (value < 0 and ".scale." not in place):
                return f"{place} is {value}"
    for place, value in _nodes(header.get("estimator", {}), "estimator"):
        if _is_number(value) and value != value:
            return f"{place} is {value}"
        if place.endswith((".seed", ".samples")) and type(value) is not int:
            return f"{place} is no whole number"
        if place.endswith(".samples") and value > MOST_SAMPLES:
            return f"{place} is {value:,}, more than {MOST_SAMPLES:,}"
        if place.endswith(".seed") and not -(2**63) <= value < 2**63:
            return f"{place} is {value:.3g}"
    return ""


def _depth(node: Any) -> int:
    """Levels of lists and dicts within each other; counted level by level, for JSON may be deep."""
    level, depth = [node], 0
    while level := [x for x in level if isinstance(x, dict | list | tuple)]:
        level = [y for x in level for y in (x.values() if isinstance(x, dict) else x)]
        depth += 1
    return depth


def parts(node: Any) -> int:
    """How many objects a description has: layers, members and what they consist of."""
    return sum(isinstance(value, dict) for _, value in _nodes(node, ""))


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _nodes(node: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Everything in a description, from the outside in, with the keys that lead to it."""
    yield place, node
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _nodes(value, f"{place}.{key}")
    elif isinstance(node, list | tuple):
        for value in node:
            yield from _nodes(value, place)


@contextmanager
def as_large_as_its_weights(numbers: int) -> Iterator[None]:
    """Within this context no more numbers are made anew than a file can account for.

    A header may claim a width of a billion; what is asked for is counted before it is allocated.

    Args:
        numbers: that the file holds.

    Raises:
        AsksForTooMuch: the header describes a larger model.
    """
    try:
        with Bounded(ALLOWANCE + NUMBERS_PER_WEIGHT * numbers):
            yield
    except AsksForTooMuch as error:
        raise AsksForTooMuch(
            error.asked,
            f"what its header describes would take at least {gigabytes(4 * error.asked)} of "
            f"memory (float32), but its weights are {numbers:,} numbers",
        ) from None
