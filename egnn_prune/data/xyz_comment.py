"""The comment line of extended XYZ: which columns it declares, and spellings that ASE misses."""

from __future__ import annotations

import re
from dataclasses import dataclass

from egnn_prune.data.units import to_ev
from egnn_prune.errors import DataError

NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?"
#: A number with Fortran's exponent of double precision; without a sign or a point it may be a name.
DOUBLE = re.compile(
    r"(?<![^\s=\"'{\[,])([+-]?(?:\d+\.\d*|\.\d+|\d+(?=[dD][+-])))[dD]([+-]?\d+)(?![^\s\"'}\],])"
)
#: Keys that only ASE reads, and only in this spelling.
SPELLINGS = {"lattice": "Lattice", "properties": "Properties", "pbc": "pbc"}
KEY = re.compile(r"(?<!\S)(lattice|properties|pbc)(?=\s*=)", re.IGNORECASE)
PROPERTIES = re.compile(r"(?<!\S)Properties\s*=\s*[\"'{\[]?([^\s\"'}\]]*)")
ENERGY = re.compile(r"(?<!\S)(\w*energy\w*)\s*=", re.IGNORECASE)
WITH_UNIT = re.compile(
    rf"(?<!\S)(\w*energy\w*)\s*=\s*([\"'{{])\s*({NUMBER})\s+([^\"'{{}}]+?)\s*[\"'}}]", re.IGNORECASE
)
#: Forces as CP2K and LAMMPS users call them.
FORCES = re.compile(r"((?:^|:)(?:\w*_)?)frc(?=(?:_\w*)?:R:3(?:$|:))", re.IGNORECASE)


@dataclass(frozen=True)
class Columns:
    """The columns of the atom lines.

    Attributes:
        count: how many there are.
        declared: whether ``Properties=`` says so; otherwise there may be more.
        species: the one with the symbols; ``None`` where atomic numbers are declared.
        real: those with real numbers.
    """

    count: int = 4
    declared: bool = False
    species: int | None = 0
    real: tuple[int, ...] = (1, 2, 3)


def mended(comment: str) -> str:
    """A comment line in the spelling that ASE reads.

    ``lattice=``, ``properties=`` and ``PBC=`` in any case, ``-1.0D+01``, ``frc:R:3`` for forces
    where there are no others, and ``energy="-10.0 eV"`` where there is no other energy.
    """
    comment = KEY.sub(lambda found: SPELLINGS[found[1].lower()], comment)
    comment = DOUBLE.sub(r"\1E\2", comment)
    if (given := PROPERTIES.search(comment)) and "force" not in given[1].lower():
        start, end = given.span(1)
        comment = comment[:start] + FORCES.sub(r"\1forces", given[1]) + comment[end:]
    return _with_declared_unit(comment)


def _with_declared_unit(comment: str) -> str:
    found = WITH_UNIT.search(comment)
    others = [key for key in ENERGY.findall(comment) if found is None or key != found[1]]
    if found is None or others:  # whose unit this would be, too, and contradict a declaration
        return comment
    try:
        to_ev(found[4])
    except DataError:
        return comment
    declaration = f'{found[1]}={found[3]} energy_unit="{found[4]}"'
    return comment[: found.start()] + declaration + comment[found.end() :]


def columns_of(comment: str, where: str) -> Columns:
    """The columns that a mended comment line declares; a symbol and a position, unless it does.

    Raises:
        DataError: the declaration is damaged, or has no element or no position.
    """
    given = PROPERTIES.search(comment)
    if given is None:
        return Columns()
    fields = given[1].split(":")
    names, kinds, widths = fields[::3], fields[1::3], fields[2::3]
    good = (
        len(fields) % 3 == 0
        and all(names)
        and all(kind in ("R", "I", "S", "L") for kind in kinds)
        and all(width.isascii() and width.isdigit() and 0 < int(width) < 1000 for width in widths)
    )
    if not good:
        raise DataError(
            f"{where} declares Properties={given[1]}, which must be NAME:TYPE:COLUMNS again and "
            "again, such as species:S:1:pos:R:3; repair it"
        )
    types = dict(zip(names, zip(kinds, map(int, widths), strict=True), strict=True))
    if types.get("pos") != ("R", 3) or not {"species", "Z"} & {*types}:
        raise DataError(
            f"{where} declares Properties={given[1]} without species:S:1 (or Z:I:1) and pos:R:3; "
            "repair it"
        )
    species, start = None, 0
    real: list[int] = []
    for name, kind, width in zip(names, kinds, map(int, widths), strict=True):
        if name == "species" and "Z" not in types:
            species = start
        if kind == "R":
            real += range(start, start + width)
        start += width
    return Columns(start, True, species, tuple(real))
