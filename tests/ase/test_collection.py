"""What a model was unsure of: few, different, and safe on the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.build import molecule
from trained_models import ethanol

from egnn_prune.ase import Collection
from egnn_prune.ase.collection import difference, sorted_distances
from egnn_prune.ase.teacher import Labels
from egnn_prune.errors import ConfigError, DataError, InputError


def labels(atoms: Atoms, energy: float = -1.5) -> Labels:
    stress = np.arange(6.0) if atoms.pbc.all() else None
    return Labels(energy, np.arange(3.0 * len(atoms)).reshape(-1, 3) / 7, stress)


def crystal(length: float = 3.0) -> Atoms:
    return Atoms("CO", positions=[[0, 0, 0], [1.2, 1.4, 1.3]], cell=[length, 3.2, 3.4], pbc=True)


def test_structures_alike_are_kept_once():
    found, first = Collection(), ethanol(0.3, 0)
    assert found.add(first, 1.0)
    turned = first.copy()
    turned.rotate(70, (1, 2, 3))
    turned.positions += 5.0
    assert not found.add(turned[[8, 1, 0, 2, 3, 7, 6, 5, 4]], 9.0)
    moved = first.copy()
    moved.positions += 0.01 * np.random.default_rng(0).normal(size=(9, 3))
    assert not found.add(moved, 9.0)
    assert found.add(ethanol(0.3, 1), 1.0) and found.add(molecule("H2O"), 1.0)
    assert found.add(molecule("H2"), 1.0) and len(found) == 4
    assert all(Collection(alike=0.0).add(one, 1.0) for one in (first, moved))


def test_distances_count_images_and_do_not_jump_at_the_cutoff():
    box = crystal()
    other = box.copy()
    other.positions += [7.0, 1.0, 0.3]  # the origin of a crystal is anywhere
    assert difference(sorted_distances(box), sorted_distances(other)) < 1e-9
    assert difference(sorted_distances(box), sorted_distances(crystal(3.4))) > 0.05
    pair = [Atoms("OH", positions=[[0, 0, 0], [0, 0, z]]) for z in (4.999, 5.001, 1.0)]
    near, beyond, bound = map(sorted_distances, pair)
    assert difference(near, beyond) < 2e-3 and difference(bound, beyond) == pytest.approx(4.0)
    hydrogen = sorted_distances(Atoms("H2", positions=[[0, 0, 0], [0, 0, 9]]))
    assert difference(beyond, hydrogen) == np.inf


def test_the_least_uncertain_makes_place():
    found = Collection(most=3)
    for k, uncertainty in enumerate((0.3, 0.1, 0.2)):
        assert found.add(ethanol(0.3, k), uncertainty)
    assert not found.add(ethanol(0.3, 7), 0.05)
    assert found.add(ethanol(0.3, 8), 0.5)
    assert sorted(item.uncertainty for item in found.waiting) == [0.2, 0.3, 0.5]
    found.mark_learned(found.waiting)
    assert not found.waiting and len(found.learned) == 3
    assert not found.add(ethanol(0.3, 8), 9.0)  # it is known already
    for k in range(10, 13):
        found.add(ethanol(0.3, k), 0.1)
    found.mark_learned(found.waiting)
    assert [item.uncertainty for item in found.learned] == [0.1] * 3  # the oldest are forgotten


def test_a_killed_run_loses_nothing(tmp_path):
    first = Collection(tmp_path)
    for k, atoms in enumerate((ethanol(0.3, 0), crystal(), ethanol(0.3, 1))):
        first.add(atoms, 0.1 * (k + 1), labels(atoms) if k < 2 else None)
        assert len(Collection(tmp_path)) == k + 1  # on the disk at once
    first.mark_learned(first.waiting[:1])
    again = Collection(tmp_path)  # the other one was never closed
    assert len(again.waiting) == 2 and len(again.learned) == 1
    for old, new in zip(first.waiting + first.learned, again.waiting + again.learned, strict=True):
        assert np.allclose(old.atoms.positions, new.atoms.positions, atol=1e-7)
        assert (old.atoms.pbc == new.atoms.pbc).all() and old.uncertainty == new.uncertainty
        assert (old.labels is None) == (new.labels is None)
        if old.labels is not None:
            assert np.allclose(old.labels.forces, new.labels.forces, atol=1e-7)
            assert old.labels.energy == new.labels.energy
            assert (old.labels.stress is None) == (new.labels.stress is None)
    assert np.allclose(again.waiting[0].labels.stress, np.arange(6.0))
    assert not again.add(ethanol(0.3, 1), 9.0)
    again.label(again.waiting[1], labels(ethanol()))
    assert Collection(tmp_path).waiting[1].labels.energy == -1.5
    assert [p.name for p in tmp_path.iterdir()] == ["collection.extxyz"]
    assert len(Collection(tmp_path / "new")) == len(Collection(tmp_path / "new")) == 0


def test_a_full_disk_stops_nothing(tmp_path, monkeypatch):
    found = Collection(tmp_path)
    found.add(ethanol(0.3, 0), 1.0)
    write = Path.write_text

    def full(self, *arguments: object, **keywords: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.warns(UserWarning, match=r"cannot write .*No space.*stays in memory") as caught:
        found.add(ethanol(0.3, 1), 1.0)
        found.add(ethanol(0.3, 2), 1.0)
    assert len(caught) == 1 and len(found) == 3
    monkeypatch.setattr(Path, "write_text", write)
    assert len(Collection(tmp_path)) == 1  # what was written before is whole
    found.add(ethanol(0.3, 3), 1.0)
    assert len(Collection(tmp_path)) == 4


@pytest.mark.parametrize("harm", ["cut", "other", "binary"])
def test_a_damaged_file_is_refused(tmp_path, harm):
    Collection(tmp_path).add(ethanol(0.3, 0), 1.0, labels(ethanol()))
    path = tmp_path / "collection.extxyz"
    content = path.read_bytes()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "other":
        path.write_bytes(content.replace(b"specialist_uncertainty", b"something_else"))
    else:
        path.write_bytes(b"\x80\x04\x95 a pickle")
    with pytest.raises(DataError, match=r"the collection .* is damaged") as caught:
        Collection(tmp_path)
    assert "\n" not in str(caught.value)


def test_what_cannot_be_a_collection(tmp_path):
    for wrong in ({"most": 0}, {"alike": -1.0}, {"alike": float("nan")}):
        with pytest.raises(ConfigError, match=r"a collection holds at least 1|alike within"):
            Collection(**wrong)
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        Collection(tmp_path / "file").claim()
