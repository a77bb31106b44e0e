"""The audit of two calculators, part by part, and the report that it makes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import ase
import numpy as np
import torch
from ase.calculators.calculator import BaseCalculator

import egnn_prune
from egnn_prune.audit.accuracy import differences, errors, per_atom
from egnn_prune.audit.calibration import calibration
from egnn_prune.audit.candidate import Candidate
from egnn_prune.audit.dynamics import FEWEST, dynamics
from egnn_prune.audit.findings import findings
from egnn_prune.audit.intervals import Compared
from egnn_prune.audit.observations import LABEL, A, B, chosen, observed
from egnn_prune.audit.smoothness import smoothness
from egnn_prune.audit.speed import grown, speed
from egnn_prune.audit.symmetry import symmetry
from egnn_prune.audit.tail import groups, spread, surroundings, worst
from egnn_prune.errors import ConfigError
from egnn_prune.system.files import write_json

#: Structures that symmetry and smoothness are tried on, evenly spread over those audited.
PROBES = 4
#: Sizes by default, as multiples of the first structure's.
MULTIPLES = (1, 8)


@dataclass(frozen=True)
class AuditReport:
    """What an audit found. What each number is: ``docs/audit.md``.

    Attributes:
        names: of ``a`` and ``b``.
        about: the structures, the seed, the machine.
        findings: in sentences, what matters most first.
        errors: of energies, forces and stresses, where labels exist.
        differences: of B from A.
        groups: force RMSE by kind of group.
        worst: the structures that got worse most.
        structures: what each structure's errors are, and how they are spread.
        symmetry: deviations by calculator and symmetry.
        smoothness: of energies and forces along lines, by calculator.
        dynamics: conservation of energy, by calculator; empty where none was asked for.
        speed: times by size; empty where no size was asked for.
        calibration: of error bars, by who states them.
    """

    names: Mapping[str, str]
    about: Mapping[str, Any]
    findings: Sequence[str]
    errors: Sequence[Compared]
    differences: Sequence[Mapping[str, Any]]
    groups: Mapping[str, Sequence[Compared]]
    worst: Sequence[Mapping[str, Any]]
    structures: Mapping[str, Any]
    symmetry: Sequence[Mapping[str, Any]]
    smoothness: Sequence[Mapping[str, Any]]
    dynamics: Sequence[Mapping[str, Any]]
    speed: Sequence[Mapping[str, Any]]
    calibration: Sequence[Mapping[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Everything as plain JSON, without NaN; what ``audit.json`` holds."""
        found = {"kind": "audit", "schema_version": 1}
        return found | {f.name: plain(getattr(self, f.name)) for f in fields(self)}

    def write(self, folder: str | Path) -> Path:
        """Write ``audit.json``, the figures and the page ``audit.html``; returns its path.

        Raises:
            InputError: the folder cannot be written to.
        """
        from egnn_prune.report.audit import write_report  # matplotlib

        write_json(Path(folder) / "audit.json", self.to_json())
        return write_report(Path(folder))


def check_options(limit: int, md_steps: int, seed: int) -> None:
    """Refuse what :func:`audit` cannot use, before calculators are loaded.

    Args:
        limit: structures to compute, at most.
        md_steps: of the simulation, 0 for none.
        seed: of all draws.

    Raises:
        ConfigError: one of them is out of range.
    """
    if limit < 1:
        raise ConfigError(f"limit must be 1 or more, not {limit}")
    if md_steps and md_steps < FEWEST:
        raise ConfigError(f"md_steps must be 0 or at least {FEWEST}, not {md_steps}")
    if seed < 0:
        raise ConfigError(f"seed must be 0 or more, not {seed}")


def audit(
    calculator_a: BaseCalculator,
    calculator_b: BaseCalculator,
    structures: Sequence[ase.Atoms],
    *,
    names: tuple[str, str] = ("A", "B"),
    limit: int = 200,
    md_steps: int = 500,
    sizes: Sequence[int] | None = None,
    seed: int = 0,
) -> AuditReport:
    """Compare two calculators.

    Args:
        calculator_a: the one that is known, such as a foundation model; any calculator of ASE.
        calculator_b: the one that is to replace it.
        structures: with labels where they are known: energies and forces of an attached
            calculator, or in ``info`` and ``arrays`` by their usual names. One atom alone is passed
            over.
        names: of both, for the page.
        limit: structures to compute, at most; more are drawn from at random.
        md_steps: of 0.5 fs, from the first structure of several atoms at 300 K; 0 for none.
        sizes: numbers of atoms at which both are timed, at least; by default once and eight times
            those of the first structure; empty for none.
        seed: of all draws.

    Raises:
        ConfigError: an argument cannot be used, or one computes no energies or forces.
        InputError: there are no structures, or one cannot be computed.

    Example:
        >>> report = audit(PrunedCalculator("old"), PrunedCalculator("new"), frames)
        >>> page = report.write("audit")
    """
    check_options(limit, md_steps, seed)
    candidates = {A: Candidate(calculator_a, names[0]), B: Candidate(calculator_b, names[1])}
    taken, rows = chosen(structures, limit, seed)
    start, movable = taken[0], next((atoms for atoms in taken if len(atoms) > 1), None)
    sizes = [n * len(start) for n in MULTIPLES] if sizes is None else sizes
    for size in sizes:
        grown(start, size)
    for candidate in candidates.values():
        candidate.refuse_unknown(structures)
    seen = observed(candidates, taken, rows)
    neighbours, strain = surroundings(seen)
    probes = [taken[k] for k in np.unique(np.linspace(0, len(taken) - 1, PROBES).astype(int))]
    parts: dict[str, Any] = {
        "errors": errors(seen),
        "differences": differences(seen),
        "groups": groups(seen, neighbours, strain),
        "symmetry": symmetry(candidates, probes, seed),
        "smoothness": smoothness(candidates, probes, seed),
        "dynamics": dynamics(candidates, movable, md_steps, seed) if movable and md_steps else [],
        "speed": speed(candidates, start, sizes, seed),
    }
    reference = LABEL if LABEL in seen.energy else A
    energies = {who: per_atom(seen, who, reference).tolist() for who in (A, B)}
    return AuditReport(
        names=dict(zip((A, B), names, strict=True)),
        about={
            "structures": len(taken),
            "of": len(structures),
            "atoms": int(seen.atoms.sum()),
            "labels": [k for k in ("energy", "forces") if LABEL in getattr(seen, k)],
            "probes": len(probes),
            "md_steps": md_steps,
            "seed": seed,
            "threads": torch.get_num_threads(),
            "versions": {"egnn_prune": egnn_prune.__version__, "ase": ase.__version__},
        },
        findings=findings(**parts),
        worst=worst(seen, neighbours, strain),
        structures={"rows": rows.tolist(), **spread(seen), "energy_per_atom": energies},
        calibration=calibration(seen),
        **parts,
    )


def plain(value: Any) -> Any:
    """As JSON holds it; what is not finite is null."""
    if isinstance(value, Compared):
        return plain(asdict(value) | {"change": value.change, "verdict": value.verdict})
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.generic):
        return plain(value.item())
    return None if isinstance(value, float) and not math.isfinite(value) else value
