"""Reading and checking the files of a run, and writing results atomically."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from egnn_prune.errors import DataError
from egnn_prune.system.array_reading import read_arrays
from egnn_prune.system.files import atomic, parsed_json, read_text

Metrics = Mapping[str, Any]
Predictions = Mapping[str, NDArray[Any]]

MODELS = ("dense", "pruned", "scratch")
"""Models in the order in which every table and figure shows them."""

CALIBRATED = "_calibrated"
"""Suffix of a quantity in ``metrics.json`` after calibration."""

_OLD = "_recalibrated"  # the suffix in runs of before November 2026
REQUIRED_MODELS = ("dense", "pruned")
SCHEMA_VERSION = 1


def number(value: object) -> float:
    """Turns a JSON number into a float; a missing or non-numeric value becomes NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value)


def mapping(parent: Mapping[str, Any], key: str, where: str = "") -> Mapping[str, Any]:
    """The mapping at `key` of `parent`, which `where` names; :class:`DataError` if it is none."""
    value = parent.get(key)
    if not isinstance(value, Mapping):
        raise DataError(f"metrics: {where}{key} must be a mapping, got {type(value).__name__}")
    return value


def check_metrics(metrics: Metrics) -> Metrics:
    """Checks the parts every table and figure relies on.

    Args:
        metrics: The content of ``metrics.json``.

    Returns:
        The same object, so that the call can be chained.

    Raises:
        DataError: If a part is missing or has the wrong form; the message names it.
    """
    if not isinstance(metrics, Mapping):
        raise DataError(f"metrics must be a mapping, got {type(metrics).__name__}")
    version = metrics.get("schema_version")
    if version != SCHEMA_VERSION:
        raise DataError(f"metrics: schema_version must be {SCHEMA_VERSION}, got {version!r}")
    if not isinstance(mapping(metrics, "dataset").get("unit"), str):
        raise DataError("metrics: dataset.unit must be a string such as 'eV'")
    models = mapping(metrics, "models")
    for name in REQUIRED_MODELS:
        model = mapping(models, name, "models.")
        for key in ("test_mae", "params", "macs_per_graph"):
            if not math.isfinite(number(model.get(key))):
                raise DataError(f"metrics: models.{name}.{key} must be a finite number")
    if models.get("scratch") is not None:
        mapping(models, "scratch", "models.")
    check_records(metrics.get("ledger"), "ledger", "layer")
    if metrics.get("pruning") is not None:
        check_records(mapping(metrics, "pruning").get("groups"), "pruning.groups", "name")
    return metrics


def check_records(records: object, where: str, key: str) -> None:
    """Checks that `records` is absent or a list of mappings that each have `key`."""
    if records is not None and not isinstance(records, list):
        raise DataError(f"metrics: {where} must be a list, got {type(records).__name__}")
    for i, record in enumerate(records or []):
        if not isinstance(record, Mapping) or key not in record:
            raise DataError(f"metrics: {where}[{i}] must be a mapping with a {key!r}")


def models_present(metrics: Metrics) -> list[str]:
    """Names of the models in `metrics`, in display order."""
    return [name for name in MODELS if metrics["models"].get(name) is not None]


def load_metrics(path: Path) -> Metrics:
    """Reads and checks ``metrics.json``.

    Raises:
        InputError: If the file is not JSON or fails `check_metrics`; the message names the file.
    """
    text = read_text(path).replace(_OLD, CALIBRATED)
    try:
        return check_metrics(parsed_json(text, path))
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """Text as it is, everything else as float64."""
    return array if array.dtype.kind == "U" else np.asarray(array, dtype=np.float64)


def load_predictions(path: Path) -> dict[str, NDArray[Any]]:
    """Reads ``predictions.npz`` without unpickling; every array but text becomes float64."""
    arrays = read_arrays(path)
    try:
        return {key.replace(_OLD, CALIBRATED): _plain(value) for key, value in arrays.items()}
    except (TypeError, ValueError) as error:
        raise DataError(f"{path}: not a readable .npz of plain numbers: {error}") from error


def series(predictions: Predictions, key: str, like: str) -> NDArray[np.float64]:
    """One array of `predictions`, checked to be as long as the array `like`.

    Raises:
        DataError: If either array is missing or the lengths differ.
    """
    for name in (like, key):
        if name not in predictions:
            raise DataError(f"predictions: array {name!r} is missing")
    values = np.asarray(predictions[key], dtype=np.float64)
    expected = np.shape(predictions[like])
    if values.ndim != 1 or values.shape != expected:
        raise DataError(
            f"predictions: {key!r} has shape {values.shape}, {like!r} has {expected}; "
            "both must be one-dimensional and equally long"
        )
    return values


def has_split(predictions: Predictions, split: str) -> bool:
    """Whether `split` is there with at least one graph."""
    return np.size(predictions.get(f"{split}_target", ())) > 0


def write_atomic(path: Path, data: bytes) -> Path:
    """Writes `data` so that `path` holds either the old or the whole new content."""
    with atomic(path) as temporary:
        temporary.write_bytes(data)
    return path
