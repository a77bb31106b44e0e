"""Many structures at once: the results of a calculator, in batches."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from tqdm import tqdm

from egnn_prune.ase.calculator import PrunedCalculator, UncertaintyExceeded, UncertaintyWarning
from egnn_prune.ase.exported import ExportedCalculator
from egnn_prune.ase.predict_file import at_once
from egnn_prune.ase.results import REASON, ase_properties, error_bars, judgement
from egnn_prune.ase.structures import graph_of, has_stress, problem
from egnn_prune.data.labels import declared
from egnn_prune.data.units import to_angstrom
from egnn_prune.errors import ConfigError, DataError


def evaluate_many(
    calculator: PrunedCalculator, structures: Sequence[Atoms], batch_size: int = 64
) -> list[Atoms]:
    """Energies, forces and stresses of many structures, each batch in one pass.

    Args:
        calculator: whose model, thresholds and ``on_uncertain`` hold; it is not changed.
        structures: molecules, crystals or both, in any order.
        batch_size: structures in a batch, at most; large ones share one with fewer.

    Returns:
        A copy of every structure, in the same order, whose calculator (a
        ``SinglePointCalculator``) holds ``energy``, ``free_energy``, ``forces`` and, where it is
        defined, ``stress``. What :class:`PrunedCalculator` has among its ``extras`` stands under
        the same name in ``info``, or, one for each atom, in ``arrays``.

    Raises:
        ConfigError: the batch size is below 1, or the calculator is another one.
        DataError: a structure cannot be used; says which.
        UncertaintyExceeded: the model is not sure of a structure, where the calculator's
            ``on_uncertain`` is ``"raise"``; says of which.

    Example:
        >>> done = evaluate_many(PrunedCalculator("runs/demo"), ase.io.read("all.xyz", ":"))
        >>> error_bars = [atoms.info["energy_uncertainty"] for atoms in done]
    """
    if type(calculator) not in (PrunedCalculator, ExportedCalculator):
        raise ConfigError(
            "evaluate_many takes a PrunedCalculator or an ExportedCalculator, not a "
            f"{type(calculator).__name__}; ask others one structure at a time"
        )
    if batch_size < 1:
        raise ConfigError(f"the batch size must be at least 1, not {batch_size}")
    model = calculator.model
    for k, atoms in enumerate(structures):
        if wrong := problem(atoms, model.elements):
            raise DataError(f"structure {k} {wrong}")
        if to_angstrom(declared(atoms).length) != 1:
            raise DataError(
                f"structure {k} declares positions in another unit than ASE's Angstrom; read it "
                "with egnn_prune.ase.structures.read_structures, which converts them"
            )
    done: dict[int, Atoms] = {}
    unsure: list[int] = []
    with tqdm(total=len(structures), desc="evaluating", leave=False, delay=2) as bar:
        for periodic, stress in ((False, False), (True, False), (True, True)):
            alike = [
                k
                for k, atoms in enumerate(structures)
                if (bool(atoms.pbc.any()), has_stress(atoms)) == (periodic, stress)
            ]
            for part in at_once(alike, [len(structures[k]) for k in alike], batch_size):
                found = model.predict(
                    [graph_of(structures[k]) for k in part],
                    forces=True,
                    stress=stress,
                    forces_std=model.force_error_bars_are_free,
                )
                for k, one in zip(part, found, strict=True):
                    one = calculator.judged(one.converted(calculator.electronvolts, "eV"))
                    extras = error_bars(one) | judgement(one)
                    if reason := extras.get(REASON):
                        unsure.append(k)
                        if calculator.on_uncertain == "raise":
                            raise UncertaintyExceeded(f"structure {k}: {reason}")
                    done[k] = _with(structures[k], ase_properties(one), extras)
                bar.update(len(part))
    if unsure and calculator.on_uncertain == "warn":
        warnings.warn(
            f"{len(unsure)} of {len(structures)} structures, the first of them structure "
            f"{min(unsure)}, are unlike the training data; info[{REASON!r}] says why",
            UncertaintyWarning,
            stacklevel=2,
        )
    return [done[k] for k in range(len(structures))]


def _with(atoms: Atoms, results: dict[str, object], extras: dict[str, object]) -> Atoms:
    out = atoms.copy()
    for name, value in extras.items():
        place = out.arrays if isinstance(value, np.ndarray) else out.info
        place[name] = value
    out.calc = SinglePointCalculator(out, **results)
    return out
