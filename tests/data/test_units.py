"""Units against the constants of CODATA, and declarations that contradict each other."""

from __future__ import annotations

import pytest

from egnn_prune.data.units import Units, kind_of, to_angstrom, to_ev, to_ev_per_angstrom
from egnn_prune.errors import DataError


@pytest.mark.parametrize(
    ("unit", "ev"),
    [
        ("eV", 1.0),
        ("meV", 0.001),
        ("kcal/mol", 0.0433641),
        ("KCAL/MOL", 0.0433641),
        ("kJ/mol", 0.01036427),
        ("Hartree", 27.2113862),
        (" Ha ", 27.2113862),
        ("rydberg", 13.6056931),
    ],
)
def test_energies(unit, ev):
    assert to_ev(unit) == pytest.approx(ev, rel=1e-6)


@pytest.mark.parametrize(
    ("unit", "angstrom"), [("Angstrom", 1), ("A", 1), ("Ang", 1), ("nm", 10), ("bohr", 0.52917721)]
)
def test_lengths(unit, angstrom):
    assert to_angstrom(unit) == pytest.approx(angstrom, rel=1e-7)


@pytest.mark.parametrize(
    ("unit", "factor"),
    [
        ("eV/Angstrom", 1.0),
        ("eV/A", 1.0),
        ("meV/Ang", 0.001),
        ("kcal/mol/Angstrom", 0.0433641),
        ("kcal/(mol Angstrom)", 0.0433641),
        ("kcal/(mol*Angstrom)", 0.0433641),
        ("kJ/mol/nm", 0.001036427),
        ("Hartree/Bohr", 51.422067),
        ("Ha/a0", 51.422067),
        ("kcal mol^-1 A^-1", 0.0433641),
        ("eV A^-1", 1.0),
        ("kcal/(mol·Å)", 0.0433641),
    ],
)
def test_forces(unit, factor):
    assert to_ev_per_angstrom(unit) == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize("convert", [to_ev, to_angstrom, to_ev_per_angstrom])
@pytest.mark.parametrize("unit", ["furlong", "", "eV/parsec", "1/nm"])
def test_unknown_units_are_refused(convert, unit):
    with pytest.raises(DataError, match=r"is not (one of|an energy over)"):
        convert(unit)


def test_an_energy_is_no_length():
    with pytest.raises(DataError, match="unit of length 'eV' is not one of Angstrom, nm, Bohr"):
        to_angstrom("eV")


def test_factors_fit_together():
    assert Units().factors("x") == (1.0, 1.0, 1.0)
    energy, length, forces = Units("Hartree", "Bohr").factors("x")
    assert forces == pytest.approx(energy / length, rel=1e-12)
    assert Units("Hartree", "Bohr", "Ha/a0").factors("x") == pytest.approx((energy, length, forces))


@pytest.mark.parametrize(
    ("forces", "factor"),
    [("kcal/mol/Angstrom", 0.0433641), ("eV/Bohr", 1.8897261), ("meV/Angstrom", 0.001)],
)
def test_each_is_converted_by_itself(forces, factor):
    energy, length, found = Units("Hartree", "Angstrom", forces).factors("own.xyz")
    assert (energy, length) == pytest.approx((27.2113862, 1), rel=1e-7)
    assert found == pytest.approx(factor, rel=1e-6)


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("energy_unit", "energy"),
        ("Energy_Units", "energy"),
        ("energyUnit", "energy"),
        ("E_unit", "energy"),
        ("POS_UNIT", "length"),
        ("r_unit", "length"),
        ("Forces-Unit", "forces"),
        ("force_units", "forces"),
        ("unit", None),
        ("energy", None),
        (3, None),
    ],
)
def test_keys(key, kind):
    assert kind_of(key) == kind


def test_unknown_units_name_the_file():
    with pytest.raises(DataError, match=r"own.xyz: the unit of energy 'cal' is not one of eV"):
        Units("cal").factors("own.xyz")
