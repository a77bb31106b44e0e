"""What every arm is given: which images, which budget, which optimiser, which start."""

import pytest
import torch

from egnn_prune.pruning import compact, snapshot
from egnn_prune.vision.experiments import incremental, lottery, magnitude, selection, structured
from egnn_prune.vision.experiments import seed_run as benches
from egnn_prune.vision.experiments.seed_run import SeedRun
from egnn_prune.vision.training import Fitted

TINY = ["data.limit=200", "training.epochs=2", "finetuning.epochs=1"]


@pytest.fixture
def seed_run(settings):
    return SeedRun(settings("digits", *TINY, "data.augmentation=crop"), 0)


@pytest.fixture
def fits(monkeypatch):
    """Everything that fit_classifier is asked for; nothing is trained."""
    asked = []

    def recorded(network, train, val, fit, **options):
        start = {k: v.clone() for k, v in snapshot(network).items()}
        asked.append({"train": train, "val": val, "fit": fit, "start": start, **options})
        accuracies = [0.1 * k for k in range(1, fit.epochs + 1)]
        rows = [
            {"epoch": k + 1, "val_loss": 1.0, "val_accuracy": a, "seconds": 1.0}
            for k, a in enumerate(accuracies)
        ]
        return Fitted(fit.epochs, max(1, fit.epochs - 1), 1.0, 1.0, rows)

    monkeypatch.setattr(benches, "fit_classifier", recorded)
    return asked


def test_images_are_standardised_by_the_training_images(seed_run):
    x = torch.cat([x for x, _ in seed_run.batches(seed_run.data.train)])
    assert float(x.mean()) == pytest.approx(0, abs=1e-4)
    assert float(x.std(correction=0)) == pytest.approx(1, abs=1e-4)
    other = torch.cat([x for x, _ in seed_run.batches(seed_run.data.test)])
    pixels = seed_run.data.test.images.float()
    by_hand = (pixels - seed_run.data.mean.view(-1, 1, 1)) / seed_run.data.std.view(-1, 1, 1)
    torch.testing.assert_close(other, by_hand)


def test_validation_decides_and_only_training_images_are_augmented(seed_run, fits):
    seed_run.fit(seed_run.fresh(), seed_run.settings.training, "here")
    (asked,) = fits
    assert asked["val"].labels.equal(seed_run.data.val.labels)
    assert not (asked["val"].crop or asked["val"].shuffle or asked["val"].drop_last)
    assert asked["train"].labels.equal(seed_run.data.train.labels)
    assert asked["train"].crop and asked["train"].shuffle


@pytest.mark.parametrize("structure", lottery.STRUCTURES)
def test_a_ticket_that_starts_anew_gets_the_whole_training(seed_run, fits, structure):
    s = seed_run.settings
    for strategy in lottery.STRATEGIES:
        fits.clear()
        lottery.ticket(seed_run, seed_run.fresh(), structure, strategy, 0.5)
        budgets = [f["fit"] for f in fits]
        if strategy == "iterative":
            assert budgets == [s.finetuning] * s.pruning.rounds
        else:
            anew = strategy in ("rewound", "reinitialised")
            assert budgets == [s.training if anew else s.finetuning]


def test_iterative_rounds_remove_the_same_share_each(seed_run, fits, monkeypatch):
    asked = []
    real = SeedRun.mask_neurons

    def watched(self, model, sparsity, keep=None, shuffled=False):
        asked.append((sparsity, keep is not None))
        return real(self, model, sparsity, keep, shuffled)

    monkeypatch.setattr(SeedRun, "mask_neurons", watched)
    lottery.ticket(seed_run, seed_run.fresh(), "structured", "iterative", 0.875)
    assert [s for s, _ in asked] == pytest.approx([0.5, 0.75, 0.875])
    assert [earlier for _, earlier in asked] == [False, True, True]


@pytest.mark.parametrize("structure", lottery.STRUCTURES)
def test_shuffled_removes_as_many_of_every_layer_but_others(seed_run, structure):
    mask = seed_run.mask_neurons if structure == "structured" else seed_run.mask_weights
    chosen, others = mask(seed_run.fresh(), 0.5), mask(seed_run.fresh(), 0.5, shuffled=True)
    assert list(chosen) == list(others)
    for key, kept in chosen.items():
        assert kept.shape == others[key].shape and kept.sum() == others[key].sum()
        assert not kept.equal(others[key])


def test_a_restart_has_first_weights_and_no_statistics(settings):
    chosen = settings("digits", *TINY)
    chosen.network.name, chosen.network.widths, chosen.network.dropout = "resnet20", [], 0.0
    seed_run = SeedRun(chosen, 0)
    model = seed_run.fresh()
    model.train()(torch.randn(8, 1, 8, 8))
    seed_run.restart(model, 5)
    for key, weight in snapshot(seed_run.fresh(5)).items():
        torch.testing.assert_close(snapshot(model)[key], weight, rtol=0, atol=0)
    means = [b for name, b in model.named_buffers() if name.endswith("running_mean")]
    assert means and not any(bool(m.any()) for m in means)


# ------------------------------------------------------------------ pruning while training


def test_one_optimiser_through_all_phases(settings, monkeypatch):
    chosen = settings(
        "incremental_mnist", "data.name=digits", "data.limit=200", "training.epochs=3"
    )
    chosen.pruning.every = 1
    steps, measures, kept = {}, [], []
    real_fit, real_mask = SeedRun.fit, SeedRun.mask_weights

    def watched(self, model, fit, label, *, optimizer, train):
        arm = label.split(",")[0]
        state = [float(s["step"]) for s in optimizer.state.values()]
        steps.setdefault(arm, []).append(max(state, default=0.0))
        measures.append(fit.monitor)
        return real_fit(self, model, fit, label, optimizer=optimizer, train=train)

    def masked(self, *arguments, **options):
        kept.append(real_mask(self, *arguments, **options))
        return kept[-1]

    monkeypatch.setattr(SeedRun, "fit", watched)
    monkeypatch.setattr(SeedRun, "mask_weights", masked)
    incremental.run_seed(chosen, 0)
    assert steps == {arm: [0, 3, 6] for arm in incremental.ARMS}  # three batches of 64 an epoch
    assert measures == [None, None, "val_error"] * 3
    first, second = kept
    for name, mask in second.items():
        assert not bool((mask & ~first[name]).any())  # nothing came back
        assert mask.sum() < first[name].sum()


def test_widths_count_from_the_dense_network(settings):
    """Rounding down in every round would leave a narrow layer too wide."""
    chosen = settings("incremental_cifar10", "data.name=digits", "data.limit=50")
    seed_run = SeedRun(chosen, 0)
    model, dense = seed_run.fresh(), 16 + 32
    for _, sparsity in list(incremental.phases(chosen))[:-1]:
        left = incremental.channels(model) / dense
        seed_run.mask_neurons(model, 1 - (1 - sparsity) / left)
        model = compact(model)
    asked = 48 * 0.9**9
    assert asked <= incremental.channels(model) <= asked + 2


# ------------------------------------------------------------------ the others


def test_scratch_and_shuffled_have_the_widths_of_the_first_criterion(settings, fits):
    chosen = settings("resnet_structured", "data.name=digits", "data.limit=50", "threads=1")
    chosen.network.name, chosen.network.shortcut = "small_cnn", None
    chosen.data.augmentation = "none"
    chosen.pruning.factors = [2.0]
    rows = structured.run_seed(chosen, 0)
    arms = {row["arm"]: row for row in rows}
    assert arms["group_norm"]["macs"] == arms["shuffled"]["macs"] == arms["scratch"]["macs"]
    by_label = {f["label"].split(", ")[1]: f for f in fits if "MACs" in f["label"]}
    assert by_label["scratch"]["fit"] == chosen.training
    assert by_label["group_norm"]["fit"] == by_label["dense_longer"]["fit"] == chosen.finetuning
    starts = {arm: f["start"] for arm, f in by_label.items()}
    weight = next(k for k in starts["scratch"] if k.endswith("weight"))
    assert not starts["scratch"][weight].equal(starts["group_norm"][weight])
    # what is shuffled goes on from trained weights, of other maps
    assert not starts["shuffled"][weight].equal(starts["group_norm"][weight])


def test_val_accuracy_is_that_of_the_weights_that_were_kept(settings, fits):
    chosen = settings("resnet101_magnitude", "data.name=digits", "data.limit=50", "threads=1")
    chosen.network.name, chosen.network.stem, chosen.network.pretrained = "small_cnn", None, False
    chosen.data.augmentation = "none"
    for row in magnitude.run_seed(chosen, 0):
        epochs = 20 if row["arm"] == "dense" else 15
        assert row["val_accuracy"] == pytest.approx(0.1 * (epochs - 1))


def test_a_deleted_network_of_an_arm_is_trained_again(settings, fits):
    chosen = settings("resnet101_magnitude", "data.name=digits", "data.limit=50", "threads=1")
    chosen.network.name, chosen.network.stem, chosen.network.pretrained = "small_cnn", None, False
    chosen.data.augmentation = "none"
    rows = magnitude.run_seed(chosen, 0)
    SeedRun(chosen, 0).folder.joinpath("0_random.safetensors").unlink()
    again = magnitude.run_seed(chosen, 0)
    assert [r["arm"] for r in again] == [r["arm"] for r in rows]
    assert len(fits) == 4 + 1


def test_uncertainty_of_images_is_their_entropy(settings):
    chosen = settings("selection", "data.name=digits", "data.ood=null", "network.name=mlp", *TINY)
    chosen.pruning.ignored, chosen.network.dropout = [], 0.0
    seed_run = SeedRun(chosen, 0)
    network = seed_run.plain()
    found = selection.uncertainty(seed_run, network)
    with torch.no_grad():
        logits = torch.cat([network.eval()(x) for x, _ in seed_run.batches(seed_run.data.train)])
    p = logits.double().softmax(1)
    torch.testing.assert_close(found.double(), -(p * p.log()).sum(1), rtol=1e-4, atol=1e-5)
    sampling_weights = selection.sampling_weights(seed_run, found, "top")
    assert float((sampling_weights * found).sum()) > float(found.mean())
