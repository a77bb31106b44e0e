"""Symbols, covalent radii and colours of the elements H to Rn, to draw molecules."""

from __future__ import annotations

SYMBOLS = (
    "H He Li Be B C N O F Ne Na Mg Al Si P S Cl Ar K Ca Sc Ti V Cr Mn Fe Co Ni Cu Zn Ga Ge As Se "
    "Br Kr Rb Sr Y Zr Nb Mo Tc Ru Rh Pd Ag Cd In Sn Sb Te I Xe Cs Ba La Ce Pr Nd Pm Sm Eu Gd Tb Dy "
    "Ho Er Tm Yb Lu Hf Ta W Re Os Ir Pt Au Hg Tl Pb Bi Po At Rn"
).split()

# Angstrom. Cordero et al., Dalton Trans. 2008, 2832, Table 2 (sp3 carbon, high-spin 3d metals,
# as in ASE 3.22); the smaller low-spin or sp2 values would hide stretched bonds.
COVALENT_RADII = (
    0.31, 0.28, 1.28, 0.96, 0.84, 0.76, 0.71, 0.66, 0.57, 0.58, 1.66, 1.41, 1.21, 1.11, 1.07, 1.05,
    1.02, 1.06, 2.03, 1.76, 1.70, 1.60, 1.53, 1.39, 1.39, 1.32, 1.26, 1.24, 1.32, 1.22, 1.22, 1.20,
    1.19, 1.20, 1.20, 1.16, 2.20, 1.95, 1.90, 1.75, 1.64, 1.54, 1.47, 1.46, 1.42, 1.39, 1.45, 1.44,
    1.42, 1.39, 1.39, 1.38, 1.39, 1.40, 2.44, 2.15, 2.07, 2.04, 2.03, 2.01, 1.99, 1.98, 1.98, 1.96,
    1.94, 1.92, 1.92, 1.89, 1.90, 1.87, 1.87, 1.75, 1.70, 1.62, 1.51, 1.44, 1.41, 1.36, 1.36, 1.32,
    1.45, 1.46, 1.48, 1.40, 1.50, 1.50,
)  # fmt: skip

# CPK convention (Corey, Pauling, Koltun), in the muted tones that print well.
_COLOURS = {
    "H": "#F4F4F4", "C": "#5A5A5A", "N": "#3B6FE0", "O": "#E0301E", "F": "#7CCB4A",
    "Si": "#D9B48F", "P": "#FF8C1A", "S": "#F2D33A", "Cl": "#2FBF3F", "B": "#F7B0A8",
    "Br": "#A23B2A", "I": "#7D3C98",
}  # fmt: skip
_OTHER = "#D98CD0"


def symbol(z: int) -> str:
    """Symbol of the element with atomic number `z`; ``Z120`` beyond the table."""
    return SYMBOLS[z - 1] if 1 <= z <= len(SYMBOLS) else f"Z{z}"


def covalent_radius(z: int) -> float:
    """Covalent radius in Angstrom; 1.5 beyond the table."""
    return COVALENT_RADII[z - 1] if 1 <= z <= len(COVALENT_RADII) else 1.5


def colour(z: int) -> str:
    """CPK colour as ``#rrggbb``; pink where the convention has none."""
    return _COLOURS.get(symbol(z), _OTHER)


def formula(numbers: list[int]) -> str:
    """Hill formula of atomic numbers: carbon, hydrogen, then the others by the alphabet."""
    counts: dict[str, int] = {}
    for name in map(symbol, numbers):
        counts[name] = counts.get(name, 0) + 1
    first = ["C", "H"] if "C" in counts else []
    order = [*first, *sorted(set(counts) - set(first))]
    return "".join(f"{s}{counts[s] if counts[s] > 1 else ''}" for s in order if s in counts)
