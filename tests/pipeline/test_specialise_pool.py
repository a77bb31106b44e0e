"""Learning from a pool: what is read and refused, rounds that are not repeated, labels kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ase import Atoms
from ase.io import read, write
from tiny_specialise import in_seconds, metrics, tiny, undrawn
from tiny_teacher import structures, tiny_teacher, write_labelled
from torch_geometric.loader import DataLoader

from egnn_prune.ase.structures import graph_of
from egnn_prune.configs.specialise_settings import SpecialiseSettings
from egnn_prune.deployment import checkpoint
from egnn_prune.errors import ConfigError, DataError
from egnn_prune.evaluation import improvement
from egnn_prune.evaluation.atom_error_bars import fit_atom_error_bars
from egnn_prune.pipeline import specialise_pool as pooling
from egnn_prune.pipeline.specialise import SpecialiseJob, run
from egnn_prune.pipeline.specialise_pool import (
    learn,
    refuse_other_level,
    teachers_labels,
    write_structures,
)
from egnn_prune.pipeline.specialise_pool_file import Pool, check_pool, read_pool
from egnn_prune.training import PotentialSettings
from egnn_prune.training.distillation import label
from egnn_prune.uncertainty import Estimator, PredictionRigidity, calibrate

CPU = torch.device("cpu")
ELEMENTS = (1, 6, 8)


def settings(path: Path | None, **changes: Any) -> SpecialiseSettings:
    found = SpecialiseSettings(pool=str(path) if path else None, label=4, rounds=2)
    for name, value in changes.items():
        setattr(found, name, value)
    return found


@pytest.fixture(autouse=True)
def short(monkeypatch):
    few = PotentialSettings(steps=2, lr=1e-4, validations=1, ema=0.0)
    monkeypatch.setattr(improvement, "SETTINGS", few)


@pytest.fixture(scope="module")
def run_structures():
    """Training and validation structures with the teacher's labels."""
    graphs = [graph_of(atoms) for atoms in structures(30)]
    found = label(tiny_teacher(), graphs)
    return found[:20], found[20:]


@pytest.fixture(scope="module")
def estimator(run_structures) -> Estimator:
    train, val = run_structures
    found = calibrate(
        PredictionRigidity(tiny_teacher(seed=1)).fit(DataLoader(train, 16)), DataLoader(val, 16)
    )
    fit_atom_error_bars(found, train, val)
    return found


@pytest.fixture
def pool_file(tmp_path) -> Path:
    """Structures of others, two of the run, and one twice."""
    path = tmp_path / "pool.xyz"
    others = structures(12, seed=5)
    write(path, [*others, *structures(30)[:1], *structures(30)[25:26], others[0]], format="extxyz")
    return path


def test_structures_of_the_run_and_copies_are_left_out(pool_file, run_structures):
    found = read_pool(settings(pool_file), ELEMENTS, *run_structures)
    assert (len(found.graphs), found.left_out, found.labelled) == (12, 3, False)


def test_labels_of_the_file_are_read(tmp_path, run_structures):
    frames = structures(8, seed=5)
    path = write_labelled(tmp_path / "labelled.xyz", frames)
    found = read_pool(settings(path), ELEMENTS, *run_structures)
    assert found.labelled
    for graph, atoms in zip(found.graphs, read(path, ":"), strict=True):
        assert float(graph.y) == pytest.approx(atoms.get_potential_energy())
        assert graph.forces.numpy() == pytest.approx(atoms.get_forces())
    unread = read_pool(settings(path, labels="teacher"), ELEMENTS, *run_structures)
    assert not unread.labelled and unread.graphs[0].get("y") is None


def test_pools_that_cannot_be_used_are_refused(tmp_path, pool_file, run_structures):
    with pytest.raises(ConfigError, match="no file"):
        check_pool(settings(tmp_path / "absent.xyz"))
    with pytest.raises(ConfigError, match="label=4 structures are too few for rounds=3"):
        check_pool(settings(pool_file, rounds=3))
    one = tmp_path / "one.xyz"
    write(one, structures(1, seed=9), format="extxyz")
    with pytest.raises(DataError, match=r"holds 1 structure, and label=4 .* lower label"):
        check_pool(settings(one))
    write(one, structures(4), format="extxyz")
    with pytest.raises(DataError, match=r"of the 4 structures .* 0 are not in the run .* lower la"):
        read_pool(settings(one), ELEMENTS, *run_structures)
    strange = tmp_path / "strange.xyz"
    write(strange, [*structures(3, seed=9), Atoms("SiH4", structures(1)[0].positions[:5])])
    with pytest.raises(DataError, match=r"structure 3 of the pool .* has the element Si"):
        read_pool(settings(strange), ELEMENTS, *run_structures)
    boxes = tmp_path / "boxes.xyz"
    write(boxes, structures(6, periodic=True), format="extxyz")
    with pytest.raises(DataError, match="is periodic, and the run has molecules only"):
        read_pool(settings(boxes), ELEMENTS, *run_structures)
    broken = tmp_path / "broken.xyz"
    broken.write_text("3\n\nH 0 0 0\nH 0 0")
    with pytest.raises(DataError, match=r"broken\.xyz"):
        read_pool(settings(broken), ELEMENTS, *run_structures)


def test_a_teacher_of_another_level_labels_nothing(run_structures):
    _, val = run_structures
    own, other = tiny_teacher(), tiny_teacher(seed=1)
    assert refuse_other_level(own, other, val, CPU) < 1e-3
    with pytest.raises(ConfigError, match=r"another level of theory; add energies and forces"):
        refuse_other_level(other, own, val, CPU)


def test_rounds_choose_anew_and_are_not_repeated(tmp_path, estimator, run_structures, monkeypatch):
    graphs = [graph_of(atoms) for atoms in structures(12, seed=5)]
    pool = Pool(graphs, False, 0)
    asked = []
    teacher = teachers_labels(tiny_teacher(), CPU)

    def label_them(some):
        asked.append(len(some))
        return teacher(some)

    def job(rounds=2):
        s = settings(None, rounds=rounds)
        return learn(estimator, pool, *run_structures, label_them, s, tmp_path, CPU)

    found, results, labelled = job()
    assert asked == [2, 2] and len(labelled) == 4
    assert len({graph.pos.numpy().tobytes() for graph in labelled}) == 4
    assert all(result["labelled"] == 2 for result in results)
    monkeypatch.setattr(pooling, "improved", None)
    again, same, read_back = job()
    assert asked == [2, 2] and same == results
    for a, b in zip(labelled, read_back, strict=True):
        assert torch.equal(a.y, b.y) and torch.equal(a.forces, b.forces)
    pairs = zip(found.state_dict().values(), again.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_a_round_that_was_interrupted_is_done_again(tmp_path, estimator, run_structures):
    pool = Pool([graph_of(atoms) for atoms in structures(12, seed=5)], False, 0)
    asked = []

    def label_them(some):
        asked.append(len(some))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return teachers_labels(tiny_teacher(), CPU)(some)

    arguments = (estimator, pool, *run_structures, label_them, settings(None), tmp_path, CPU)
    with pytest.raises(KeyboardInterrupt):
        learn(*arguments)
    assert len(learn(*arguments)[2]) == 4 and asked == [2, 2, 2]


def test_labelled_structures_are_written_for_others(tmp_path, run_structures):
    path = tmp_path / "labelled.extxyz"
    write_structures(path, run_structures[0][:3])
    for atoms, graph in zip(read(path, ":"), run_structures[0], strict=False):
        assert atoms.get_potential_energy() == pytest.approx(float(graph.y))
        assert atoms.get_forces() == pytest.approx(graph.forces.numpy(), abs=1e-7)


# ---------------------------------------------------------------- the whole command


@pytest.mark.slow
def test_the_command_learns_from_a_pool(tmp_path):
    """Its stages before the pool are taken from a run without one."""
    path, out, plain = tmp_path / "mine.xyz", tmp_path / "run", tmp_path / "plain"
    write(path, structures(100), format="extxyz")
    new = write_labelled(tmp_path / "pool.xyz", structures(12, seed=500))
    few: dict[str, Any] = {"budgets": [0.6], "training__scratch_lrs": [1e-2], "data__limit": 20}
    few |= {"uncertainty__method": "last_layer", "labels": "teacher", "training__dynamics": 0}
    with in_seconds(), undrawn(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("egnn_prune.deployment.export.export_program", None)
        run(tiny(plain, path, **few))
        few |= {"pool": str(new), "label": 4, "rounds": 2, "selection": "diverse"}
        patch.setattr(SpecialiseJob, "fit", None)  # everything trained is taken over
        run(tiny(out, path, reuse=[str(plain)], **few))
    found = metrics(out)
    pool = found["pool"]
    assert "pool" not in metrics(plain)
    assert (pool["size"], pool["selection"], pool["labels"]) == (12, "diverse", "teacher")
    assert [result["labelled"] for result in pool["rounds"]] == [2, 2]
    assert len(read(out / "labelled.extxyz", ":")) == 4
    learned = checkpoint.load(out / "stages" / "learned_network.safetensors")
    final = checkpoint.load_estimator(out / "specialised.safetensors")
    for a, b in zip(learned.parameters(), final.network.parameters(), strict=True):
        assert torch.equal(a, b)
    accepted = any(result["accepted"] for result in pool["rounds"])
    begun = checkpoint.load(out / "stages" / "specialised_network.safetensors")
    pairs = zip(begun.parameters(), learned.parameters(), strict=True)
    assert accepted is not all(torch.equal(a, b) for a, b in pairs)
    assert final.atoms is not None and "force_ence_calibrated" in found["models"]["specialised"]


def test_what_is_said_of_a_pool_without_one(tmp_path):
    with pytest.raises(ConfigError, match="rounds is about a pool"):
        check_pool(SpecialiseSettings(rounds=3))
    s = settings(tmp_path / "pool.xyz")
    s.uncertainty.method = "none"
    with pytest.raises(ConfigError, match="selection=uncertain goes by error bars"):
        check_pool(s)


def test_what_came_after_the_last_accepted_round_was_not_learned():
    rounds = [{"labelled": n, "accepted": kept} for n, kept in ((4, False), (3, True), (2, False))]
    assert pooling.up_to_the_last_accepted(rounds) == 7
    assert pooling.up_to_the_last_accepted(rounds[:1]) == 0
