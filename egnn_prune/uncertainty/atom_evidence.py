"""What error bars of forces on atoms are fitted to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from egnn_prune.errors import InputError
from egnn_prune.uncertainty.calibration.points import MIN_POINTS


@dataclass(frozen=True)
class AtomEvidence:
    """What error bars of forces are fitted to: atoms of structures with known forces.

    Attributes:
        features: ``[N, F]``, what the network's last layer reads of every atom.
        z: ``[N]``, elements.
        structure: ``[N]``, the structure that every atom belongs to.
        wrong: ``[N, 3]``, predicted less true forces, in the target's unit per unit of length.
        spread: ``[N]``, standard deviation of the members' forces, as the root mean square over
            the components; ``None`` for a single network.
    """

    features: Tensor
    z: Tensor
    structure: Tensor
    wrong: Tensor
    spread: Tensor | None = None

    @classmethod
    def cat(cls, parts: Sequence[AtomEvidence]) -> AtomEvidence:
        """Evidence of several lists of structures as of one.

        Raises:
            InputError: there is none, or only some know the members' spread.
        """
        if not parts:
            raise InputError("error bars of forces are fitted on structures; there are none")
        if len({part.spread is None for part in parts}) > 1:
            raise InputError("the members' spread is known of some of the structures only")
        found: dict[str, Any] = {}
        for field in fields(cls):
            columns = [getattr(part, field.name) for part in parts]
            found[field.name] = None if columns[0] is None else torch.cat(columns)
        first, structures = 0, []
        for part in parts:
            structures.append(part.structure + first)
            first += int(part.structure.max()) + 1
        return cls(**found | {"structure": torch.cat(structures)})

    def rows(self, chosen: Tensor) -> AtomEvidence:
        """Some of the atoms, by a mask ``[N]``; structures without any are not counted."""
        found: dict[str, Any] = {}
        for field in fields(self):
            column = getattr(self, field.name)
            found[field.name] = None if column is None else column[chosen]
        structure = found["structure"].unique(return_inverse=True)[1]
        return AtomEvidence(**found | {"structure": structure})

    def checked(self, name: str) -> AtomEvidence:
        """The same, where error bars can be fitted to it.

        Args:
            name: of the split, for the message.

        Raises:
            InputError: there are too few atoms, a number is NaN or infinite, or all forces are
                exact.
        """
        if 3 * len(self.z) < MIN_POINTS:
            raise InputError(f"error bars of forces need more {name} atoms than {len(self.z)}")
        if not bool(self.wrong.isfinite().all()):
            raise InputError(f"a force of the {name} structures is NaN or infinite")
        read = [self.features] if self.spread is None else [self.features, self.spread]
        if not all(bool(numbers.isfinite().all()) for numbers in read):
            raise InputError(
                f"what the network says of the {name} atoms is NaN or infinite; check its weights"
            )
        if not bool(self.wrong.any()):
            raise InputError(
                f"every force of the {name} structures is exact, so no error bar fits them; "
                "calibrate on labels that the model did not make itself"
            )
        return self
