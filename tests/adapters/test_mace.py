"""MACE's own networks, translated and written back. Skipped, saying so, where mace is missing."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from mace_helpers import ELEMENTS, SHIFTS, potential
from torch import nn
from torch_geometric.data import Data

from egnn_prune.adapters import UnknownLayout, drop_species, load, mace
from egnn_prune.adapters.mace import mace_graph, read_mace, write_mace
from egnn_prune.adapters.trial import trial_structure
from egnn_prune.errors import ConfigError, DataError, InputError, MissingExtraError
from egnn_prune.graphs import with_edges
from egnn_prune.models import energy_and_forces, energy_forces_stress
from egnn_prune.pruning import apply_masks, compact
from egnn_prune.testing import assert_equivariant, assert_prunable

RESIDUAL, PLAIN = "RealAgnosticResidualInteractionBlock", "RealAgnosticInteractionBlock"
CUTOFF = 4.0

needs_mace = pytest.mark.skipif(
    mace.find_spec("mace") is None,
    reason="mace is not installed (pip install mace-torch), so its own networks are not compared",
)


def build(
    hidden: str = "8x0e+8x1o",
    correlation: int = 2,
    first: str = RESIDUAL,
    then: str = RESIDUAL,
    dtype: torch.dtype = torch.float64,
    scaled: bool = True,
    **settings: object,
) -> nn.Module:
    """A small MACE with random weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of mace and e3nn
        from e3nn import o3
        from mace import modules

        torch.manual_seed(0)
        before = torch.get_default_dtype()
        torch.set_default_dtype(dtype)
        try:
            blocks = modules.interaction_classes
            scales = {"atomic_inter_scale": 0.7, "atomic_inter_shift": 0.1} if scaled else {}
            options = {
                "r_max": CUTOFF,
                "num_bessel": 6,
                "num_polynomial_cutoff": 5,
                "max_ell": 2,
                "num_interactions": 2,
                "num_elements": len(ELEMENTS),
                "MLP_irreps": o3.Irreps("6x0e"),
                "gate": nn.functional.silu,
                "atomic_energies": np.array(SHIFTS),
                "avg_num_neighbors": 12.0,
                "atomic_numbers": list(ELEMENTS),
                "radial_MLP": [8, 8],
            }
            model = (modules.ScaleShiftMACE if scaled else modules.MACE)(
                **{**options, **settings, **scales},
                interaction_cls=blocks[then],
                interaction_cls_first=blocks[first],
                hidden_irreps=o3.Irreps(hidden),
                correlation=correlation,
            )
        finally:
            torch.set_default_dtype(before)
        return model.eval()


def difference(model: nn.Module, translated: nn.Module, head: int = 0) -> float:
    """The largest one of energies (without the isolated atoms') and forces, over their size."""
    graph = trial_structure(ELEMENTS, CUTOFF)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = model(mace_graph(model, graph, head), compute_force=True)
    prediction, forces = energy_and_forces(translated, graph)
    size = theirs["forces"].abs().max()
    energy = (prediction.mean - theirs["energy"]).abs().max()
    return max(float((forces - theirs["forces"]).abs().max() / size), float(energy / size))


CASES = [
    ("16x0e+16x1o", 3, RESIDUAL, RESIDUAL),
    ("16x0e+16x1o", 2, PLAIN, RESIDUAL),
    ("16x0e+16x1o", 1, PLAIN, PLAIN),
    ("16x0e", 3, PLAIN, RESIDUAL),
    ("16x0e", 2, RESIDUAL, PLAIN),
    ("16x0e", 1, RESIDUAL, RESIDUAL),
]


@needs_mace
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("hidden, correlation, first, then", CASES)
def test_the_same_numbers(hidden, correlation, first, then):
    model = build(hidden, correlation, first, then)
    assert difference(model, read_mace(model)) < 1e-9


OTHERS = {
    "one layer": {"num_interactions": 1},
    "three layers": {"num_interactions": 3},
    "no scale": {"scaled": False},
    "products alike for all elements": {"use_agnostic_product": True},
    "last read-out only": {"use_last_readout_only": True},
    "other parities": {"hidden": "4x0e+4x0o+4x1e+4x1o", "max_ell": 1},
}


@needs_mace
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("settings", OTHERS.values(), ids=OTHERS.keys())
def test_other_shapes(settings):
    model = build(**settings)
    assert difference(model, read_mace(model)) < 1e-9


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_single_precision_and_narrow_convolutions():
    from e3nn import o3

    model = build(dtype=torch.float32, edge_irreps=o3.Irreps("4x0e+2x1o"))
    translated = read_mace(model)
    assert next(translated.parameters()).dtype == torch.float32
    assert translated.network.layers[1].conv == {"0e": 4, "1o": 2}
    graph = trial_structure(ELEMENTS, CUTOFF)
    theirs = model(mace_graph(model, graph), compute_force=True)["forces"]
    ours = energy_and_forces(translated, graph)[1]
    assert float((ours - theirs).abs().max() / theirs.abs().max()) < 1e-5


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_stress_of_cells():
    model = build()
    graph = with_edges(trial_structure(ELEMENTS, CUTOFF), CUTOFF)
    inputs = dict(mace_graph(model, graph))
    cell = graph.cell[0]
    inputs["cell"] = cell
    inputs["unit_shifts"] = inputs["shifts"] @ torch.linalg.inv(cell)
    theirs = model(inputs, compute_stress=True)["stress"]
    ours = energy_forces_stress(read_mace(model), graph)[2]
    torch.testing.assert_close(ours, theirs.detach(), rtol=1e-8, atol=1e-12)


@needs_mace
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("first", [RESIDUAL, PLAIN])
def test_masked_is_compact(first):
    translated = read_mace(build("4x0e+4x1o", 3, first))
    kinds = {g.kind for g in translated.network.channel_groups()}
    graph = trial_structure(ELEMENTS, CUTOFF)
    for some in (["conv"], ["message"], ["path"], sorted(kinds)):
        assert_prunable(translated.offering(*some), graph, sparsities=(0.5,), equivariance=False)
    assert_equivariant(translated, graph, transforms=2)


@needs_mace
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kinds", [["conv"], ["embedding", "stream", "message", "inner"]], ids=str)
def test_written_back(kinds):
    translated = read_mace(build("6x0e+6x1o", 2, PLAIN))
    known = {g.kind for g in translated.network.channel_groups()}
    masked = translated.offering(*(k for k in kinds if k in known))
    keep = {g.name: torch.rand(g.n).argsort() < 4 for g in masked.channel_groups()}
    apply_masks(masked, keep)
    small = drop_species(compact(masked), ["H", "O"])
    native = write_mace(small)
    assert type(native).__name__ == "ScaleShiftMACE"
    again = read_mace(native)
    graph = trial_structure((1, 8), CUTOFF)
    torch.testing.assert_close(again(graph).mean, small(graph).mean, rtol=1e-12, atol=1e-9)
    size = sum(p.numel() for p in native.parameters())
    assert size == sum(p.numel() for p in small.parameters())


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_files(tmp_path, monkeypatch):
    monkeypatch.setenv(mace.TRUST, "1")
    model = build("4x0e", 1)
    torch.save(model, tmp_path / "mine.model")
    translated = load(tmp_path / "mine.model")
    assert difference(model, translated) < 1e-9
    (tmp_path / "broken.model").write_bytes(b"nothing")
    with pytest.raises(DataError, match="cannot be read as a MACE"):
        load(tmp_path / "broken.model")
    torch.save({"weights": 1}, tmp_path / "other.model")
    with pytest.raises(DataError, match="holds a dict, not a MACE"):
        load(tmp_path / "other.model")


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_heads():
    settings = {"heads": ["pbe", "r2scan"], "atomic_energies": np.array([SHIFTS, SHIFTS[::-1]])}
    model = build("4x0e", 2, **settings)
    model.scale_shift.scale, model.scale_shift.shift = torch.tensor([[0.7, 0.3], [0.1, 0.2]])
    with pytest.raises(ConfigError, match="heads pbe, r2scan; choose one by head="):
        read_mace(model)
    for k, head in enumerate(settings["heads"]):
        assert difference(model, read_mace(model, head), k) < 1e-9
    with pytest.raises(ConfigError, match="not 'hse'"):
        read_mace(model, "hse")


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_what_is_not_known_is_refused_by_name():
    block = "RealAgnosticDensityResidualInteractionBlock"
    for settings, what in (
        ({"then": block}, f"interaction blocks {block}; egnn_prune knows"),
        ({"distance_transform": "Agnesi"}, "AgnesiTransform"),
        ({"pair_repulsion": True}, "a pair repulsion"),
        ({"radial_type": "gaussian"}, "GaussianBasis"),
    ):
        with pytest.raises(UnknownLayout, match=what):
            read_mace(build("2x0e", 1, **settings))


@needs_mace
@pytest.mark.filterwarnings("ignore")
def test_a_layout_that_changed_is_refused(monkeypatch):
    """The translation is tried: other numbers are never accepted silently."""
    model = build("2x0e", 1)
    model.interactions[1].forward = lambda **_: (torch.zeros(8, 2, 9, dtype=torch.float64), None)
    with pytest.raises(UnknownLayout, match="other numbers than the original"):
        read_mace(model)


def test_what_is_no_mace():
    with pytest.raises(UnknownLayout, match="a Linear is no MACE"):
        read_mace(nn.Linear(1, 1))


def test_without_mace(monkeypatch, tmp_path):
    monkeypatch.setattr(mace, "find_spec", lambda name: None)
    (tmp_path / "a.model").write_bytes(b"nothing")
    with pytest.raises(MissingExtraError, match="pip install mace-torch"):
        load(tmp_path / "a.model")
    with pytest.raises(MissingExtraError, match="pip install mace-torch"):
        write_mace(potential())
    with pytest.raises(InputError, match="no potential and no file"):
        load(tmp_path / "b.model")


class Bomb:
    def __reduce__(self):
        return (pytest.fail, ("a file was unpickled",))


@pytest.mark.parametrize("said", [None, "", "0", "no"])
def test_a_file_is_refused_until_its_user_trusts_it(said, monkeypatch, tmp_path):
    monkeypatch.setattr(mace, "find_spec", lambda name: object())  # it need not be installed
    monkeypatch.delenv(mace.TRUST, raising=False)
    if said is not None:
        monkeypatch.setenv(mace.TRUST, said)
    torch.save(Bomb(), tmp_path / "a.model")
    for read in (load, read_mace):
        with pytest.raises(ConfigError, match="EGNN_PRUNE_TRUST_PICKLES=1") as caught:
            read(tmp_path / "a.model")
        assert "is a pickle" in str(caught.value) and "\n" not in str(caught.value)


def test_a_trusted_file_is_read(monkeypatch, tmp_path):
    monkeypatch.setattr(mace, "find_spec", lambda name: object())
    monkeypatch.setenv(mace.TRUST, "1")
    torch.save({"weights": 1}, tmp_path / "a.model")
    with pytest.raises(DataError, match="holds a dict, not a MACE"):
        load(tmp_path / "a.model")


def test_an_element_that_it_does_not_know():
    with pytest.raises(DataError, match="does not know the element Fe"):
        potential()(Data(z=torch.tensor([26]), pos=torch.zeros(1, 3)))
