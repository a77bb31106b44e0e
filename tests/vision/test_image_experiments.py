"""The experiments: what is removed, what is learned, what the rows say."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file

from egnn_prune.configs.settings import check
from egnn_prune.errors import ConfigError
from egnn_prune.pruning import snapshot
from egnn_prune.pruning.tensors import get_tensor
from egnn_prune.vision.evaluation import weight_counts
from egnn_prune.vision.experiments import incremental, lottery, magnitude, selection, structured
from egnn_prune.vision.experiments.seed_run import SeedRun, made_permanent

TINY = ["data.limit=200", "training.epochs=2", "finetuning.epochs=1"]


@pytest.fixture
def seed_run(settings):
    return SeedRun(settings("digits", *TINY), 0)


@pytest.fixture
def dense(seed_run):
    return seed_run.dense()


# ------------------------------------------------------------------ lottery


@pytest.mark.parametrize(
    ("sparsity", "weights"), [(0.2, 48_654), (0.4, 35_987), (0.6, 24_136), (0.8, 13_101)]
)
def test_lenet_loses_exactly_the_neurons_of_the_original(settings, monkeypatch, sparsity, weights):
    """EXPERIMENTS.md, S1: the number of weights left at every sparsity."""
    seed_run = SeedRun(settings("lottery", "data.name=digits", "data.ood=null"), 0)
    monkeypatch.setattr(type(seed_run.data), "shape", (3, 32, 32))
    model = seed_run.fresh()
    seed_run.mask_neurons(model, sparsity)
    assert weight_counts(made_permanent(model)) == {"parameters": weights, "stored": weights}


@pytest.mark.parametrize("strategy", lottery.STRATEGIES)
def test_single_weights_go_exactly_and_stay_gone(seed_run, dense, strategy):
    names = seed_run.weight_names(dense)
    assert names == ["network.0.weight", "network.3.weight"] or len(names) == 2
    sizes = [get_tensor(dense, name).numel() for name in names]
    model, _ = lottery.ticket(seed_run, copy.deepcopy(dense), "unstructured", strategy, 0.7)
    network = made_permanent(model)
    zeros = [int((get_tensor(network, n[8:]) == 0).sum()) for n in names]
    assert zeros == [int(0.7 * size + 1e-9) for size in sizes]
    assert weight_counts(network)["stored"] == weight_counts(dense.network)["stored"]


def test_iterative_removes_as_much_as_one_shot(seed_run, dense):
    counts = set()
    for strategy in ("one_shot", "iterative"):
        model, _ = lottery.ticket(seed_run, copy.deepcopy(dense), "structured", strategy, 0.75)
        counts.add(weight_counts(made_permanent(model))["stored"])
    assert len(counts) == 1


def test_where_the_tickets_start(seed_run, dense, monkeypatch):
    """One shot from the trained weights, rewound from the first, the control from new ones."""
    starts = {}

    def no_fit(model, fit, label, **_):
        starts[label.split(", ")[1]] = snapshot(model)

    monkeypatch.setattr(seed_run, "fit", no_fit)
    for strategy in ("one_shot", "rewound", "reinitialised"):
        lottery.ticket(seed_run, copy.deepcopy(dense), "unstructured", strategy, 0.5)
    first, trained = snapshot(seed_run.fresh()), snapshot(dense)
    for name, weight in trained.items():
        torch.testing.assert_close(starts["one_shot"][name], weight, rtol=0, atol=0)
        torch.testing.assert_close(starts["rewound"][name], first[name], rtol=0, atol=0)
        if weight.dim() > 1:
            assert not torch.isclose(starts["reinitialised"][name], first[name]).any()


def test_the_arms_leave_the_dense_network_alone(seed_run, dense):
    before = snapshot(dense)
    for structure in lottery.STRUCTURES:
        lottery.ticket(seed_run, copy.deepcopy(dense), structure, "one_shot", 0.5)
    for name, weight in snapshot(dense).items():
        torch.testing.assert_close(weight, before[name], rtol=0, atol=0)


def test_an_interrupted_seed_goes_on(settings, monkeypatch):
    chosen = settings("digits", *TINY, "pruning.strategies=[one_shot]", "pruning.sparsities=[0.5]")
    fits = []
    real = SeedRun.fit

    def counted(self, model, fit, label, **options):
        fits.append(label)
        if len(fits) == 3:
            raise KeyboardInterrupt
        return real(self, model, fit, label, **options)

    monkeypatch.setattr(SeedRun, "fit", counted)
    with pytest.raises(KeyboardInterrupt):
        lottery.run_seed(chosen, 0)
    rows = lottery.run_seed(chosen, 0)
    assert fits[:2] == ["dense", "dense, trained_on, 0"]
    assert fits[2:] == ["structured, one_shot, 0.5"] * 2 + ["unstructured, one_shot, 0.5"]
    assert lottery.run_seed(chosen, 0) == rows and len(fits) == 5
    monkeypatch.setattr(SeedRun, "fit", real)
    undisturbed = settings("digits", *TINY, "pruning.strategies=[one_shot]")
    undisturbed.out += "_again"
    undisturbed.pruning.sparsities = [0.5]
    for a, b in zip(rows, lottery.run_seed(undisturbed, 0), strict=True):
        assert {**a, "seconds": 0, "history": 0} == {**b, "seconds": 0, "history": 0}


def test_rows_of_the_lottery(settings):
    chosen = settings("digits", *TINY, "data.ood=digits", "data.ood_path=null")
    chosen.data.ood = None
    rows = lottery.run_seed(chosen, 0)
    assert len(rows) == 2 + 2 * 2 * 3
    assert [r["structure"] for r in rows[:2]] == ["dense", "dense"]
    for row in rows:
        assert 0 <= row["ece"] <= 1 and 0 <= row["accuracy"] <= 1
        assert sum(row["reliability"]["count"]) == 270
        assert {"dropout_ece", "ece_scaled", "uce", "nll", "epochs", "best_epoch"} <= set(row)
    json.dumps(rows, allow_nan=False)


# ------------------------------------------------------------------ pruning while training


def test_training_that_loses_neurons_gets_cheaper(settings):
    chosen = settings(
        "incremental_mnist", "data.name=digits", *TINY[:1], "training.epochs=5", "pruning.every=2"
    )
    chosen.pruning.rate = 0.25
    baseline, neurons, connections = incremental.run_seed(chosen, 0)
    for row in (baseline, neurons, connections):  # the best of the last phase, the fifth epoch
        assert row["best_epoch"] == 5
    assert [row["epoch"] for row in neurons["history"]] == [1, 2, 3, 4, 5]

    def of(row, key):
        return [h[key] for h in row["history"]]

    # a quarter of the dense network, then a quarter of what is left, counted from the dense one
    widths = [(300, 100), (300, 100), (225, 75), (225, 75), (169, 57)]
    assert of(neurons, "macs") == [64 * a + a * b + b * 10 for a, b in widths]
    assert neurons["macs"] == neurons["stored"] - (169 + 57 + 10)
    assert len(set(of(baseline, "parameters"))) == 1
    # single weights: zeros, in tensors of the same size; a quarter, then a quarter of what is left
    hidden = 64 * 300 + 300 * 100 + 100 * 10  # the connections to the classes, too
    gone = [baseline["stored"] - n for n in of(connections, "parameters")]
    left = [0, 0, hidden // 4, hidden // 4, round(hidden * (1 - 0.75**2))]
    assert gone == pytest.approx(left, abs=3)
    assert connections["stored"] == baseline["stored"]
    for row in (baseline, neurons, connections):
        assert row["train_cpu_seconds"] > 0 and row["latency_ms"] > 0 and row["peak_bytes"] > 0
        assert row["history"][-1]["cpu_seconds"] == pytest.approx(row["train_cpu_seconds"])


def test_moments_survive_the_surgery(settings):
    """The step after a neuron is cut out is the step that the masked network would have taken."""
    chosen = settings("incremental_mnist", "data.name=digits", *TINY[:1])
    seed_run = SeedRun(chosen, 0)
    model = seed_run.fresh()
    optimizer = incremental.build_optimizer(model, chosen.training)
    (x, y), *_ = seed_run.looked_at()

    def step(network, optimizer):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(network(x), y).backward()
        optimizer.step()

    for _ in range(3):
        step(model, optimizer)
    seed_run.mask_neurons(model, 0.4)
    small, cut = incremental._smaller(model, optimizer)
    for _ in range(2):
        step(model, optimizer)
        step(small, cut)
        torch.testing.assert_close(small(x), model(x), rtol=1e-4, atol=1e-4)
    assert any(bool(state["exp_avg"].any()) for state in cut.state.values())


@pytest.mark.parametrize("key", ["training.patience=3", "training.schedule=cosine"])
def test_pruning_while_training_keeps_its_epochs(settings, key):
    with pytest.raises(ConfigError, match=r"patience at null and training\.schedule at constant"):
        incremental.check(settings("incremental_mnist", key))


# ------------------------------------------------------------------ residual networks


@pytest.fixture
def pictures(tmp_path):
    """A folder with a few images of two kinds of noise, dark and bright."""
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for label, base in {"dark": 0, "bright": 120}.items():
        for k in range(20):
            pixels = torch.randint(base, base + 130, (16, 16, 3), generator=generator)
            path = tmp_path / "pictures" / label / f"{k}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    return tmp_path / "pictures"


def residual(settings, experiment, pictures, *overrides):
    images = ["data.name=folder", f"data.path={pictures}", "data.size=16", "training.batch_size=8"]
    short = ["training.epochs=1", "finetuning.epochs=1", "finetuning.batch_size=8", "threads=1"]
    return settings(experiment, *images, *short, *overrides)


@pytest.mark.parametrize("network", ["small_cnn", pytest.param("resnet20", marks=pytest.mark.slow)])
def test_fewer_macs_are_met(settings, pictures, network):
    one = ["pruning.factors=[2.5]", "pruning.criteria=[group_norm]", f"network.name={network}"]
    chosen = residual(settings, "resnet_structured", pictures, *one)
    if network == "small_cnn":
        chosen.network.shortcut = None
    rows = structured.run_seed(chosen, 0)
    dense = rows[0]["macs"]
    assert [(r["arm"], r["factor"]) for r in rows] == [
        ("dense", 1.0),
        ("dense_longer", 1.0),
        ("group_norm", 2.5),
    ]
    for row in rows[2:]:
        assert 0.8 * dense < row["factor"] * row["macs"] <= dense
        assert row["latency_ms"] > 0


def test_magnitude_beside_random_with_files_and_times(settings, pictures):
    chosen = residual(
        settings,
        "resnet101_magnitude",
        pictures,
        "network.name=lenet",
        "network.stem=null",
        "network.pretrained=false",
    )
    rows = magnitude.run_seed(chosen, 0)
    by_arm = {row["arm"]: row for row in rows}
    assert list(by_arm) == ["dense", "dense_longer", "magnitude", "random"]
    whole = by_arm["dense"]
    for arm in ("magnitude", "random"):
        row = by_arm[arm]
        assert row["weights"] == whole["weights"]
        # a fifth of 3 * 6 * 25 + 6 * 16 * 25 convolution weights, ranked together
        assert whole["nonzero"] - row["nonzero"] == 2850 // 5
        assert row["file_mb"] == whole["file_mb"]
        assert row["compressed_mb"] < whole["compressed_mb"]
    for row in rows:
        assert row["latency_ms"] > 0 and row["seconds_per_epoch"] > 0
    kept = {arm: _weights(chosen, arm, "conv2.weight") for arm in ("dense", "magnitude", "random")}
    gone = {arm: (kept[arm] == 0) for arm in ("magnitude", "random")}
    assert (
        gone["magnitude"].sum() != gone["random"].sum()
        or (gone["magnitude"] != gone["random"]).any()
    )
    # magnitude takes the smallest, chance takes any
    size = kept["dense"].abs()
    assert size[gone["magnitude"]].max() <= size[~gone["magnitude"]].min()
    assert size[gone["random"]].max() > size[~gone["random"]].min()


def _weights(chosen, arm, name):
    return load_file(f"{chosen.out}/seeds/0_{arm}.safetensors")[name]


@pytest.mark.slow
def test_the_whole_resnet101_experiment_on_a_few_images(settings, pictures):
    chosen = residual(
        settings,
        "resnet101_magnitude",
        pictures,
        "network.pretrained=false",
        "network.stem=imagenet",
        "data.size=32",
        "training.batch_size=16",
    )
    rows = magnitude.run_seed(chosen, 0)
    assert rows[0]["weights"] > 42e6
    assert rows[2]["nonzero"] < 0.82 * rows[0]["weights"]


# ------------------------------------------------------------------ selection


def test_every_selection_gets_equal_steps(settings):
    chosen = settings("selection", "data.name=digits", "data.ood=null", "network.name=mlp", *TINY)
    chosen.network.dropout, chosen.pruning.ignored = 0.2, []
    rows = selection.run_seed(chosen, 0)
    assert [r["strategy"] for r in rows] == ["top", "random", "least", "all"]
    assert {r["steps"] for r in rows} == {3}
    assert len({r["start_accuracy"] for r in rows}) == 1
    assert len({r["nll"] for r in rows}) == 4


def test_uncertain_images_are_the_ones_that_are_drawn(settings, monkeypatch):
    chosen = settings("selection", "data.name=digits", "data.ood=null", "network.name=mlp", *TINY)
    chosen.pruning.ignored, chosen.pruning.sparsities = [], [0.0]
    drawn = {}
    real = SeedRun.training

    def watched(self, fit, weights=None):
        drawn.setdefault("weights", []).append(weights)
        return real(self, fit, weights)

    monkeypatch.setattr(SeedRun, "training", watched)
    scores = []
    scored = selection.uncertainty
    monkeypatch.setattr(
        selection,
        "uncertainty",
        lambda b, n: scores.append(scored(b, n)) or scores[-1],
    )
    selection.run_seed(chosen, 0)
    top, least = drawn["weights"][1], drawn["weights"][3]
    assert int((top > 0).sum()) == int((least > 0).sum()) == 60
    assert scores[0][top > 0].min() >= scores[0][top == 0].max()
    assert scores[0][least > 0].max() <= scores[0][least == 0].min()


# ------------------------------------------------------------------ bad settings


@pytest.mark.parametrize(
    ("module", "experiment", "override", "message"),
    [
        (lottery, "digits", "pruning.strategies=[luck]", r"some of one_shot, .*not \['luck'\]"),
        (
            lottery,
            "digits",
            "pruning.structures=[blocks]",
            r"structured, unstructured, not \['blocks'\]",
        ),
        (lottery, "digits", "pruning.sparsities=[0.5,1.0]", "at least 0 and below 1"),
        (lottery, "digits", "pruning.sparsities=[0.5,0.5]", "different values"),
        (lottery, "digits", "pruning.rounds=0", "round"),
        (magnitude, "resnet101_magnitude", "pruning.sparsities=[0.2,0.3]", "one fraction"),
        (
            incremental,
            "incremental_mnist",
            "pruning.rate=1.5",
            "rate must be at least 0 and below 1",
        ),
        (incremental, "incremental_mnist", "pruning.every=0", "every must be at least 1"),
        (structured, "resnet_structured", "pruning.factors=[0.5]", "above 1"),
        (structured, "resnet_structured", "pruning.criteria=[size]", r"not \['size'\]"),
        (structured, "resnet_structured", "pruning.criteria=[scratch]", "begins with a criterion"),
        (incremental, "incremental_mnist", "training.epochs=5", "nothing would ever be removed"),
        (selection, "selection", "selection.strategies=[best]", r"not \['best'\]"),
        (selection, "selection", "finetuning.patience=2", "patience=null"),
    ],
)
def test_settings_that_an_experiment_cannot_use(settings, module, experiment, override, message):
    asked = settings(experiment, override)
    with pytest.raises(ConfigError, match=message):
        check(asked)  # as run_experiment does before
        module.check(asked)
