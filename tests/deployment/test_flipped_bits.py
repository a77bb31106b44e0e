"""A model file in which one bit is another: refused, or what it holds is the same."""

from __future__ import annotations

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from egnn_prune import save
from egnn_prune.deployment.checkpoint import read_estimator, read_header
from egnn_prune.errors import InputError
from egnn_prune.models import IrrepsNet, MeanVarianceHead, PropertyModel, TargetScale
from egnn_prune.uncertainty import (
    DeepEnsemble,
    Estimator,
    LastLayer,
    MCDropout,
    SinglePass,
    calibrate,
)


def dropout(model: PropertyModel, batch: Any) -> Estimator:
    return calibrate(MCDropout(model, 3), [batch], "isotonic")


def last_layer(model: PropertyModel, batch: Any) -> Estimator:
    return calibrate(LastLayer(model).fit([batch]), [batch], "robust")


def ensemble(model: PropertyModel, batch: Any) -> Estimator:
    return SinglePass(DeepEnsemble([model, copy.deepcopy(model)]))


def irreps(model: PropertyModel, batch: Any) -> Estimator:
    trunk = IrrepsNet(3, copies=2, layers=1, lmax=1)
    return SinglePass(PropertyModel(trunk, MeanVarianceHead(2, 4), (1, 6, 8), TargetScale()))


KINDS = {"dropout": dropout, "last_layer": last_layer, "ensemble": ensemble, "irreps": irreps}


def content(path: Path) -> tuple[Any, dict[str, Tensor]]:
    """All that a file tells: header and metadata, and every tensor of the estimator."""
    estimator, metadata = read_estimator(path)
    return (read_header(path), metadata), estimator.state_dict()


def silent_changes(path: Path, flips: int) -> dict[str, int]:
    """What became of a file with so many single flipped bits, each in a file of its own."""
    whole, draw = path.read_bytes(), random.Random(0)
    header, tensors = content(path)
    start = 8 + int.from_bytes(whole[:8], "little")
    # half of them in the part before the weights, which is a small one of large files
    places = [draw.randrange(*((start,) if k % 2 else (start, len(whole)))) for k in range(flips)]
    found = {"refused": 0, "the same": 0, "changed": 0}
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 1 << draw.randrange(8)
        path.write_bytes(flipped)
        try:
            now, weights = content(path)
        except InputError:
            found["refused"] += 1
            continue
        same = now == header and tensors.keys() == weights.keys()
        same = same and all(torch.equal(tensors[k], weights[k]) for k in tensors)
        found["the same" if same else "changed"] += 1
    return found


def written(kind: str, make_property_model: Any, make_batch: Any, path: Path) -> Path:
    model = make_property_model(dropout=0.2)
    save(KINDS[kind](model, make_batch(*[4] * 20)), path, unit="eV", target="energy")
    return path


@pytest.mark.parametrize("kind", KINDS)
def test_no_flipped_bit_changes_anything_in_silence(
    kind, dtype, make_property_model, make_batch, tmp_path
):
    path = written(kind, make_property_model, make_batch, tmp_path / "m.safetensors")
    found = silent_changes(path, 60 // len(KINDS))
    assert found["changed"] == 0 and found["refused"] > 0, found


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_bit_of_a_thousand(kind, make_property_model, make_batch, tmp_path):
    path = written(kind, make_property_model, make_batch, tmp_path / "m.safetensors")
    found = silent_changes(path, 1000)
    print(f"{kind}: {found}")
    assert found["changed"] == 0, found


def test_names_of_tensors_are_part_of_it(make_property_model, make_batch, tmp_path):
    """Every single bit of the checksum's own entry and of the format's."""
    path = written("dropout", make_property_model, make_batch, tmp_path / "m.safetensors")
    whole = path.read_bytes()
    for word in (b"sha256", b"format"):
        place = whole.index(word)
        for bit in range(8 * (len(word) + 6)):
            flipped = bytearray(whole)
            flipped[place + bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with pytest.raises(InputError):
                read_estimator(path)
