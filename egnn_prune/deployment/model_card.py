"""A model's card: what it predicts, on what data, how well, how sure, and where it ends."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ase.data import chemical_symbols

from egnn_prune.deployment.training_domain import TrainingDomain
from egnn_prune.prediction import members_of
from egnn_prune.pruning.masks import MaskParametrization
from egnn_prune.uncertainty import AtomErrorBars, Calibrated, Estimator

#: Of the table of errors: what a card says of a model, at most.
MOST_SCORES = 24
#: Tags by which the hub finds it.
TAGS = ("chemistry", "materials-science", "interatomic-potential", "uncertainty", "pruned")


def model_card(
    estimator: Estimator,
    metadata: Mapping[str, Any],
    scores: Mapping[str, float] | None = None,
    *,
    repository: str = "OWNER/NAME",
    license: str | None = None,
) -> str:
    """Markdown with the header (YAML) that model hubs read.

    What nobody stated is said to be unknown; nothing is made up.

    Args:
        estimator: the network with its error bars.
        metadata: what :func:`egnn_prune.save` was given, such as ``target``, ``unit``, ``dataset``.
        scores: measured on structures that no fit saw, by name.
        repository: how the example calls it.
        license: of the weights, by the hub's name for it, such as ``"mit"``.
    """
    scores = dict(scores or {})
    target = str(metadata.get("target") or "") or "value"
    unit = str(metadata.get("unit") or "") or "unit not stated"
    parts = [
        _header(metadata, scores, target, license),
        f"# {repository.rpartition('/')[2]}\n",
        f"A network of `egnn_prune` that predicts **{target}** ({unit}) of structures, with error "
        "bars.\n",
        "## Model\n",
        _table(_facts(estimator, unit)),
        "## Data\n",
        _data(metadata),
        "## Errors\n",
        _errors(scores),
        "## Error bars\n",
        _bars(estimator, metadata, unit),
        "## Limits\n",
        _limits(estimator, metadata),
        "## How to load it\n",
        _example(repository, bool(_elements(estimator))),
    ]
    return "\n".join(parts)


def _header(
    metadata: Mapping[str, Any], scores: Mapping[str, float], target: str, license: str | None
) -> str:
    """YAML, of which JSON is a part: nothing in it can end a string too early."""
    head: dict[str, Any] = {"library_name": "egnn_prune", "pipeline_tag": "graph-ml"}
    head["tags"] = [*TAGS]
    if license:
        head["license"] = license
    if scores:
        task = {"type": "graph-ml", "name": target}
        data = str(metadata.get("dataset") or "not stated")
        measured = [{"type": name, "value": value} for name, value in scores.items()]
        result = {"task": task, "dataset": {"type": data, "name": data}, "metrics": measured}
        head["model-index"] = [{"name": target, "results": [result]}]
    lines = [f"{key}: {json.dumps(value, allow_nan=False)}" for key, value in head.items()]
    return "\n".join(["---", *lines, "---", ""])


def _facts(estimator: Estimator, unit: str) -> dict[str, str]:
    networks = members_of(estimator.network)
    weights = [p for p in estimator.network.parameters()]
    inner = getattr(networks[0], "trunk", getattr(networks[0], "network", networks[0]))
    cutoff = getattr(getattr(inner, "options", None), "cutoff", None)
    elements = _elements(estimator)
    masked = any(isinstance(m, MaskParametrization) for m in estimator.modules())
    precision = str(weights[0].dtype).removeprefix("torch.")
    kinds = dict.fromkeys(type(module).__name__ for module in (networks[0], inner))
    return {
        "network": " of ".join(kinds),
        "networks": str(len(networks)),
        "weights": f"{sum(p.numel() for p in weights):,} ({precision})",
        "channels": "masked, still of their dense widths" if masked else "as they are computed",
        "elements": ", ".join(elements) or "none: it reads other features",
        "cutoff": "all pairs of atoms" if cutoff is None else f"{cutoff:g} Angstrom",
        "energies": unit,
    }


def _elements(estimator: Estimator) -> list[str]:
    numbers = getattr(members_of(estimator.network)[0], "elements", ())
    return [chemical_symbols[z] for z in numbers]


def _data(metadata: Mapping[str, Any]) -> str:
    said = [f"Training data: {metadata.get('dataset') or 'not stated'}.\n"]
    if domain := _domain(metadata):
        size = (
            "all periodic" if domain.size is None else f"{domain.size[0]:g} to {domain.size[1]:g}"
        )
        said.append("What the training structures looked like:\n")
        shares = {
            f"share of {name}": f"{100 * low:.0f} % to {100 * high:.0f} % of the atoms"
            for name, (low, high) in domain.shares.items()
        }
        shortest = {f"shortest {k}": f"{v:.3g} Angstrom" for k, v in domain.shortest.items()}
        said.append(_table({"atoms of a molecule": size, **shares, **shortest}))
    return "\n".join(said)


def _domain(metadata: Mapping[str, Any]) -> TrainingDomain | None:
    stored = metadata.get("training_domain")
    return None if stored is None else TrainingDomain.from_json(stored)


def _errors(scores: Mapping[str, float]) -> str:
    if not scores:
        return "Not stated: measure them on structures of your own before you rely on it.\n"
    return _table({f"`{name}`": f"{value:.4g}" for name, value in scores.items()})


def _bars(estimator: Estimator, metadata: Mapping[str, Any], unit: str) -> str:
    inner = estimator.estimator if isinstance(estimator, Calibrated) else estimator
    facts = {"method": type(inner).__name__, "calibration": "none: read the numbers as a ranking"}
    if isinstance(estimator, Calibrated):
        facts["calibration"] = estimator.calibration.name
    limits = metadata.get("validation_epistemic_std") or metadata.get("validation_doubt") or {}
    for name, value in limits.items():
        facts[f"epistemic deviation of validation structures, {name}"] = f"{value:.4g} {unit}"
    bars = estimator.atoms
    if isinstance(bars, AtomErrorBars):
        facts["error bars of forces"] = f"from {bars.source}, calibrated"
        facts["99 % of validation forces below"] = f"{float(bars.std_limit):.4g} {unit}/Angstrom"
    return _table(facts)


def _limits(estimator: Estimator, metadata: Mapping[str, Any]) -> str:
    elements = ", ".join(_elements(estimator))
    limits = metadata.get("validation_epistemic_std") or metadata.get("validation_doubt")
    known = bool(limits) or _domain(metadata) is not None
    said = [f"It refuses elements other than {elements}."] if elements else []
    said.append(
        "Predictions say in `in_distribution` whether a structure looks like the training data; "
        "where they say no, do not rely on energy and forces."
        if known
        else "The file does not hold what the training structures looked like, so nothing flags a "
        "structure that is unlike them."
    )
    said.append(
        "Error bars are calibrated on average over structures like those of the validation data, "
        "which promises nothing for a single structure or for others."
        if isinstance(estimator, Calibrated)
        else "Its error bars are not calibrated."
    )
    return "\n".join(f"- {line}" for line in said) + "\n"


def _example(repository: str, structures: bool) -> str:
    if structures:
        code = (
            "from egnn_prune.ase import PrunedCalculator\nfrom egnn_prune.hub import "
            f'from_pretrained\n\nmodel = from_pretrained("{repository}")  # revision="..." pins a '
            "commit\natoms.calc = PrunedCalculator(model)\n"
        )
    else:
        code = (
            "import egnn_prune\nfrom egnn_prune.hub import pretrained_file\n\nestimator = "
            f'egnn_prune.load_estimator(pretrained_file("{repository}"))\n'
            "prediction = estimator.predict(batch)\n"
        )
    return (
        f"```python\n{code}```\n\nThe weights lie in `model.safetensors`, the architecture as "
        "JSON in its header and, to be read by people, in `config.json`. Nothing is unpickled and "
        "no code of this repository is run.\n"
    )


def _table(rows: Mapping[str, str]) -> str:
    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    lines = [f"| {cell(k)} | {cell(v)} |" for k, v in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines, ""])
