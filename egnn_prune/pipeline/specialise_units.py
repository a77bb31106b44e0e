"""Are a file's forces the teacher's, but for the level of theory? Other units are noticed."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import nn
from torch_geometric.data import Data

from egnn_prune.errors import SuspiciousDataWarning
from egnn_prune.training.distillation import label

#: Structures that are compared, at most.
STRUCTURES = 10
#: Labels may be this many times as long, or as short, as the teacher's. Levels of theory differ by
#: some tens of per cent; kcal/mol beside eV are 23 and Hartree/Bohr 0.02.
FACTOR = 5.0
#: Correlation of the components from which on the factor means a unit and not chance.
CORRELATION = 0.4


def warn_of_foreign_units(
    teacher: nn.Module, graphs: Sequence[Data], name: str, device: torch.device
) -> None:
    """Warn where forces are many times the teacher's, or against them.

    Energies and forces that are both in kcal/mol agree with each other, so that the file alone
    does not show it (:func:`egnn_prune.data.plausible.warn_of_other_units`).

    Args:
        teacher: predicts in eV.
        graphs: structures with ``forces [N, 3]``, in eV/Angstrom if all is well.
        name: of the file, for the message.
        device: where to run.
    """
    some = list(graphs[:STRUCTURES])
    asked = label(teacher, some, device=device, progress="teacher's forces")
    own = torch.cat([graph.forces.double().flatten() for graph in some])
    theirs = torch.cat([graph.forces.double().flatten() for graph in asked])
    correlation = float(torch.corrcoef(torch.stack([own, theirs]))[0, 1])
    if not abs(correlation) >= CORRELATION:  # nor where it is NaN, of forces that are all zero
        return
    ratio = float(own.norm() / theirs.norm())
    if correlation < 0:
        problem = "forces point against the teacher's: are they gradients, whose sign is the other?"
    elif not 1 / FACTOR <= ratio <= FACTOR:
        problem = (
            f"forces are {ratio:.3g} times as large as the teacher's (1 is right, 23 is kcal/mol, "
            "0.02 is Hartree/Bohr): convert the file to eV, or declare its unit in every comment "
            "line, such as energy_unit=kcal/mol"
        )
    else:
        return
    warnings.warn(f"{name}: {problem}", SuspiciousDataWarning, stacklevel=2)
