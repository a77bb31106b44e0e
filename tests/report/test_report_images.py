"""Reports of the experiments on images: numbers against hand computation, gaps and bad input."""

from __future__ import annotations

import copy
import csv
import json
import math
import re

import image_rows
import numpy as np
import pytest

from egnn_prune.errors import InputError
from egnn_prune.report.common.statistics import t_quantile
from egnn_prune.report.images import image_table, write_image_report
from egnn_prune.report.images.page import KINDS
from egnn_prune.report.images.reliability import pooled
from egnn_prune.report.images.rows import ratio, ratio_text, ratio_words

SMALL = {
    "lottery": {"structures": ("structured",), "strategies": ("one_shot", "rewound")},
    "incremental": {"epochs": 12},
}


def made(kind: str, seeds: int = 3, **options):
    return image_rows.MAKERS[kind](seeds, **{**SMALL.get(kind, {}), **options})


FIGURES = {
    "lottery": {"sparsity", "reliability", "dropout", "ood_classes"},
    "magnitude": {"magnitude"},
    "incremental": {"phases", "costs"},
    "structured": {"macs"},
    "selection": {"selection"},
}


@pytest.fixture(scope="module")
def everything():
    """Metrics of every kind; not to be changed."""
    return {kind: made(kind) for kind in image_rows.MAKERS}


@pytest.fixture(scope="module")
def figures(everything):
    return {kind: KINDS[kind].figures(metrics) for kind, metrics in everything.items()}


def numbers(metrics, key, **cell):
    return np.array([row[key] for row in metrics["rows"] if cell.items() <= row.items()])


def interval(values):
    return t_quantile(len(values) - 1) * np.std(values, ddof=1) / math.sqrt(len(values))


def line_of(text: str, *starts: str) -> str:
    return next(line for line in text.splitlines() if re.match(r"\s+".join(starts), line.strip()))


def panel(figure, start: str):
    axes = [a for a in figure.axes if a.get_title(loc="left").lower().startswith(start)]
    assert len(axes) == 1, [a.get_title(loc="left") for a in figure.axes]
    return axes[0]


def drawn(axes, label):
    """Points and half widths of the error bars with a label."""
    (container,) = [c for c in axes.containers if c.get_label() == label]
    points, _, (bars,) = container.lines
    half = [abs(np.diff(np.array(s), axis=0)).max() / 2 for s in bars.get_segments()]
    return np.array(points.get_xdata()), np.array(points.get_ydata()), np.array(half)


@pytest.mark.parametrize("kind", image_rows.MAKERS)
def test_the_folder_holds_page_figures_table_and_rows(kind, tmp_path):
    fewer = {"sparsities": (0.8,)} if kind == "lottery" else {}
    metrics = made(kind, 2, **fewer)
    (tmp_path / "metrics.json").write_text(json.dumps(metrics))
    (tmp_path / "config.yaml").write_text("note: <script>alert(1)</script>\n")
    page = write_image_report(tmp_path)
    html = page.read_text()
    assert page == tmp_path / "report.html"
    names = {path.stem for path in tmp_path.glob("*.png")}
    assert names == FIGURES[kind]
    assert html.count("data:image/png;base64,") == len(names)
    assert all(len(alt) > 60 for alt in re.findall(r'<img [^>]*alt="([^"]*)"', html))
    assert html.count("<script") == 1 and "<script>alert" not in html  # ours sorts tables
    assert "&lt;script&gt;alert" in html
    assert not re.findall(r'(?:src|href)="(?!data:|#)', html)  # opens offline
    assert "prefers-color-scheme: dark" in html and metrics["title"] in html
    assert (tmp_path / "table.txt").read_text() == image_table(metrics) + "\n"
    rows = list(csv.DictReader((tmp_path / "rows.csv").read_text().splitlines()))
    assert len(rows) == len(metrics["rows"])
    assert float(rows[0]["accuracy"]) == metrics["rows"][0]["accuracy"]
    assert not {"history", "reliability", "ood_labels"} & set(rows[0])  # scalars only
    assert not list(tmp_path.glob(".*"))


def test_lottery_table_and_published_rows(everything):
    metrics = everything["lottery"]
    text = image_table(metrics)
    accuracy = 100 * numbers(metrics, "accuracy", strategy="rewound", sparsity=0.6)
    line = line_of(text, "structured", "rewound[a-z ]*", r"0\.6\b")
    assert f"{accuracy.mean():.2f} ± {accuracy.std(ddof=1):.2f}" in line
    ece = numbers(metrics, "ece_scaled", strategy="rewound", sparsity=0.6)
    assert f"{ece.mean():.3f} ± {ece.std(ddof=1):.3f}" in line and "18,841 " in line
    assert "13,101  60.54 ± 1.27" in line_of(text, "published", "original[a-z, -]*", r"0\.8\b")
    assert "mean ± sd over 3 seeds" in text


def test_lottery_lines_are_means_with_intervals(everything, figures):
    metrics, (figure, _) = everything["lottery"], figures["lottery"]["sparsity"]
    axes = panel(figure, "ece")
    _, mean, half = drawn(axes, "one-shot")
    for k, sparsity in enumerate((0.2, 0.4, 0.6, 0.8)):
        ece = numbers(metrics, "ece", strategy="one_shot", sparsity=sparsity)
        assert mean[k] == pytest.approx(ece.mean())
        assert half[k] == pytest.approx(interval(ece))
    lines = {line.get_label(): line for line in axes.lines}
    assert lines["dense"].get_ydata()[0] == pytest.approx(
        numbers(metrics, "ece", strategy="dense").mean()
    )
    published = lines["original checkpoints, re-evaluated"]
    assert published.get_ydata() == pytest.approx([0.108, 0.099, 0.094, 0.074, 0.061])
    percent = {line.get_label(): line for line in panel(figure, "accuracy").lines}
    assert percent["original checkpoints, re-evaluated"].get_ydata()[0] == pytest.approx(60.79)


def test_what_the_published_numbers_are_is_said_where_they_stand(everything, figures):
    said = "found by testing again the trained networks (checkpoints) that it left"
    assert said in figures["lottery"]["sparsity"][1]
    (table,) = KINDS["lottery"].tables(everything["lottery"])
    assert said in table.note and "“original checkpoints, re-evaluated”" in table.note
    bare = everything["lottery"] | {"published": []}
    (table,) = KINDS["lottery"].tables(bare)
    assert not table.note and said not in KINDS["lottery"].figures(bare)["sparsity"][1]


def test_lottery_headline_says_the_largest_sparsity_that_keeps_accuracy(everything):
    metrics = copy.deepcopy(everything["lottery"])
    for row in metrics["rows"]:
        row["accuracy"] = 0.6 + 0.001 * row["seed"] + (0.0005 * (-1) ** row["seed"])
        if row["strategy"] == "one_shot":
            row["accuracy"] -= 0.001 * row["seed"] if row["sparsity"] < 0.7 else 0.1
        if row["strategy"] == "rewound":
            row["accuracy"] -= 0.2
        row["ece"] = 0.1 - 0.05 * row["sparsity"]
    said = KINDS["lottery"].headline(metrics)
    change = np.array([0, -0.1, -0.2])
    low, high = change.mean() - interval(change), change.mean() + interval(change)
    assert said.startswith("At 60 % sparsity (structured, one-shot)")
    assert f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}] points (3 seeds)" in said
    assert said.endswith("ECE falls from 0.100 to 0.070 (-0.030 [-0.030, -0.030])")
    for row in metrics["rows"]:
        row["accuracy"] -= 0.1 * (row["structure"] == "structured")
    assert KINDS["lottery"].headline(metrics).startswith("No sparsity keeps the accuracy")


def test_reliability_bins_are_pooled_by_count():
    rows = [
        {"reliability": {"confidence": [None, 0.5], "accuracy": [None, 0.4], "count": [0, 30]}},
        {"reliability": {"confidence": [0.1, 0.7], "accuracy": [0.2, 0.8], "count": [5, 10]}},
    ]
    confidence, accuracy, count = pooled(rows)
    assert confidence == pytest.approx([0.1, (30 * 0.5 + 10 * 0.7) / 40])
    assert accuracy == pytest.approx([0.2, (30 * 0.4 + 10 * 0.8) / 40])
    assert count.tolist() == [5, 40]


def test_men_called_deer(everything, figures):
    metrics, (figure, caption) = everything["lottery"], figures["lottery"]["ood_classes"]
    man, deer = image_rows.UNKNOWN.index("man"), image_rows.CIFAR.index("deer")
    expected = {}
    for sparsity, strategy in ((0.0, "dense"), (0.8, "one_shot")):
        cell = {"strategy": strategy, "sparsity": sparsity}
        found = [r for r in metrics["rows"] if cell.items() <= r.items()]
        expected[sparsity] = [r["ood_labels"][man][deer] for r in found]  # of 100 images
    _, mean, half = drawn(figure.axes[1], "man called deer")
    assert mean[[0, -1]] == pytest.approx([np.mean(expected[0.0]), np.mean(expected[0.8])])
    assert half[-1] == pytest.approx(interval(expected[0.8]))
    heat = figure.axes[0]
    names = [label.get_text() for label in heat.get_yticklabels()]
    change = heat.images[0].get_array()[names.index("man"), deer]
    assert change == pytest.approx(np.mean(expected[0.8]) - np.mean(expected[0.0]))
    assert "man → deer" in caption


def test_ood_classes_without_images_are_left_out(everything):
    metrics = copy.deepcopy(everything["lottery"])
    for row in metrics["rows"]:
        row["ood_labels"] = row["ood_labels"][:5]  # the others have no images
        row["ood_labels"][0] = [0] * 10
    figure, caption = KINDS["lottery"].figures(metrics)["ood_classes"]
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert sorted(names) == sorted(image_rows.UNKNOWN[1:5])
    assert "deer" not in caption


def test_magnitude_shows_seeds_sizes_and_says_what_zeros_do(everything, figures):
    metrics, (figure, _) = everything["magnitude"], figures["magnitude"]["magnitude"]
    text = image_table(metrics)
    assert "neither the file nor the forward pass smaller" in text
    change = 100 * (
        numbers(metrics, "accuracy", arm="magnitude") - numbers(metrics, "accuracy", arm="dense")
    )
    low, high = change.mean() - interval(change), change.mean() + interval(change)
    assert line_of(text, "magnitude ").endswith(f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]")
    assert "131.20 " in line_of(text, "magnitude ")
    dots = [line.get_xdata() for line in panel(figure, "accuracy").lines if line.get_alpha()]
    assert dots[2] == pytest.approx(100 * numbers(metrics, "accuracy", arm="magnitude"))
    widths = [bar.get_width() for bar in panel(figure, "saved file").patches]
    assert widths == pytest.approx([170.4] * 4 + [157.9] * 2 + [131.2] * 2)
    said = KINDS["magnitude"].headline(metrics)
    assert "20 % of the weights removed" in said and "1.2x smaller" in said


def test_ratios_are_geometric_and_paired():
    new, old = {0: 1.0, 1: 4.0, 9: 7.0}, {1: 8.0, 0: 8.0, 3: 1.0}
    found = ratio(new, old)
    logs = np.log([1 / 8, 1 / 2])
    assert math.exp(found.mean) == pytest.approx(0.25)
    assert found.half == pytest.approx(interval(logs))
    assert ratio_text(found) == "0.25x [0.00, >1000]"  # two seeds say little
    assert ratio_words(found, "fewer", "more") == "not measurably fewer"
    assert ratio_words(ratio({0: 1.0}, {0: 3.0}), "fewer", "more") == "3.0x fewer"
    measured = ratio_words(ratio({0: 1.0}, {0: 3.0}), "faster", "slower", measured=True)
    assert measured == "3.0x faster (one seed: cannot be told)"
    several = ratio({0: 1.0, 1: 1.0, 2: 1.0}, {0: 3.0, 1: 3.1, 2: 2.9})
    ends = np.exp(-several.mean + several.half * np.array([-1, 1]))
    assert ratio_words(several, "faster", "slower", measured=True) == (
        f"3.0x faster [{ends[0]:.2f}, {ends[1]:.2f}]"
    )
    assert ratio_words(ratio({0: 1.0}, {0: 1.01}), "faster", "slower") == "not measurably faster"


def test_incremental_costs(everything, figures):
    metrics, (figure, _) = everything["incremental"], figures["incremental"]["costs"]
    logs = np.log(
        numbers(metrics, "latency_ms", arm="neurons")
        / numbers(metrics, "latency_ms", arm="baseline")
    )
    low, high = np.exp(logs.mean() - interval(logs)), np.exp(logs.mean() + interval(logs))
    text = image_table(metrics).split("\n\n")[1]
    assert f"{np.exp(logs.mean()):.2f}x [{low:.2f}, {high:.2f}]" in line_of(text, "neurons")
    x, *_ = drawn(panel(figure, "cost"), "neurons")
    names = [label.get_text() for label in panel(figure, "cost").get_yticklabels()]
    assert x[names.index("inference")] == pytest.approx(np.exp(logs.mean()))
    change = 100 * (
        numbers(metrics, "accuracy", arm="neurons") - numbers(metrics, "accuracy", arm="baseline")
    )
    point, _, half = drawn(panel(figure, "accuracy"), "neurons")
    assert (point[0], half[0]) == (pytest.approx(change.mean()), pytest.approx(interval(change)))
    parameters = numbers(metrics, "parameters", arm="baseline") / numbers(
        metrics, "parameters", arm="neurons"
    )
    said = KINDS["incremental"].headline(metrics)
    assert f"{change.mean():+.2f} [" in said and f"{parameters.mean():.1f}x fewer param" in said


def test_incremental_phases_show_seconds_of_each_epoch(everything, figures):
    metrics, (figure, _) = everything["incremental"], figures["incremental"]["phases"]
    axes = panel(figure, "processor")
    lines = {line.get_label(): line.get_ydata() for line in axes.lines}
    totals = np.array(
        [
            [entry["cpu_seconds"] for entry in row["history"]]
            for row in metrics["rows"]
            if row["arm"] == "neurons"
        ]
    )
    assert lines["neurons"] == pytest.approx(np.diff(totals, prepend=0.0, axis=1).mean(0))


def test_structured_change_and_published_points(everything, figures):
    metrics, (figure, _) = everything["structured"], figures["structured"]["macs"]
    axes = panel(figure, "change")
    _, y, half = drawn(axes, "taylor")
    for k, factor in enumerate((2.0, 2.5)):
        change = 100 * (
            numbers(metrics, "accuracy", arm="taylor", factor=factor)
            - numbers(metrics, "accuracy", arm="dense")
        )
        assert (y[k], half[k]) == (pytest.approx(change.mean()), pytest.approx(interval(change)))
    open_marks = {line.get_label(): line for line in axes.lines}
    sparse = open_marks["Torch-Pruning + sparse learning, ResNet-56"]
    assert sparse.get_xdata() == pytest.approx([2.1, 2.57])
    assert sparse.get_ydata() == pytest.approx([0.24, 0.11])
    left, _, _ = drawn(panel(figure, "accuracy"), "magnitude")
    share = numbers(metrics, "macs", arm="magnitude", factor=2.5) / 40_800_000
    assert left[1] == pytest.approx(100 * share.mean(), abs=1)  # moved aside a little
    assert "-0.61" in line_of(image_table(metrics), "L1 norm")


def test_selection_differences_are_paired_with_random(everything, figures):
    metrics, (figure, _) = everything["selection"], figures["selection"]["selection"]
    text = image_table(metrics)
    change = 100 * (
        numbers(metrics, "accuracy", strategy="least")
        - numbers(metrics, "accuracy", strategy="random")
    )
    low, high = change.mean() - interval(change), change.mean() + interval(change)
    expected = f"{change.mean():+.2f} [{low:+.2f}, {high:+.2f}]"
    assert expected in line_of(text, "least uncertain")
    x, _, half = drawn(panel(figure, "accuracy"), "sparsity 0.6")
    names = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    at = names.index("least uncertain")
    assert (x[at], half[at]) == (pytest.approx(change.mean()), pytest.approx(interval(change)))


@pytest.mark.parametrize("kind", image_rows.MAKERS)
def test_one_seed_has_no_intervals_and_says_so(kind):
    metrics = made(kind, 1)
    text = image_table(metrics)
    assert "one seed" in text and "±" not in text.split("published")[0]
    body = [line for line in text.splitlines() if "[95 %]" not in line]
    assert not any("[" in line for line in body)
    said = KINDS[kind].headline(metrics)
    assert "[" not in said and ("cannot be told" in said or "no interval" in said)
    notes = [figure.get_suptitle() for figure, _ in KINDS[kind].figures(metrics).values()]
    assert all("one seed" in note for note in notes)


@pytest.mark.parametrize("kind", image_rows.MAKERS)
def test_only_what_is_needed(kind):
    metrics = made(kind, 2)
    needed = {"seed", *KINDS[kind].REQUIRED, *KINDS[kind].CELL}
    rows = [{key: row[key] for key in needed} for row in metrics["rows"]]
    bare = {"schema_version": 1, "experiment": kind, "rows": rows}
    KINDS[kind].figures(bare)
    assert "nan" not in image_table(bare).lower()
    assert "nan" not in KINDS[kind].headline(bare)


@pytest.mark.parametrize("kind", image_rows.MAKERS)
@pytest.mark.parametrize("which", ["first", "last"])
def test_one_arm_alone(kind, which, tmp_path):
    metrics = made(kind, 2)
    row = metrics["rows"][0 if which == "first" else -1]
    cell = {key: row[key] for key in KINDS[kind].CELL}
    metrics["rows"] = [r for r in metrics["rows"] if cell.items() <= r.items()]
    KINDS[kind].figures(metrics)
    assert image_table(metrics)
    assert "nan" not in KINDS[kind].headline(metrics)


def test_both_structures_have_their_columns():
    metrics = made("lottery", 2, structures=("structured", "unstructured"), sparsities=(0.5, 0.8))
    figure, _ = KINDS["lottery"].figures(metrics)["sparsity"]
    assert panel(figure, "structured: ece") and panel(figure, "unstructured: ece")
    only = copy.deepcopy(metrics)
    only["rows"] = [row for row in only["rows"] if row["structure"] != "structured"]
    drawings = KINDS["lottery"].figures(only)
    assert "unstructured, one-shot" in drawings["reliability"][0].get_suptitle()
    assert "(unstructured" in KINDS["lottery"].headline(only)


def broken(change):
    metrics = made("lottery", 1)
    change(metrics)
    return metrics


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(experiment="wizardry"), "experiment is 'wizardry'; the report knows"),
        (lambda m: m.update(schema_version=7), "schema_version must be 1, got 7"),
        (lambda m: m.update(rows=[]), "rows must be a list of at least one"),
        (lambda m: m.update(rows=[3]), r"rows\[0\] must be a mapping, got int"),
        (lambda m: m.update(data=3), "data must be a mapping"),
        (lambda m: m["rows"][1].pop("accuracy"), r"rows\[1\] lacks accuracy"),
        (lambda m: m["rows"][1].pop("seed"), r"rows\[1\] lacks seed"),
        (lambda m: m["rows"][2].update(accuracy="high"), r"rows\[2\] has accuracy='high'"),
        (lambda m: m["rows"][2].update(sparsity=math.nan), r"rows\[2\] has sparsity=nan"),
        (lambda m: m["rows"][2].update(structure="loose"), r"rows\[2\] has structure 'loose'"),
        (lambda m: m["rows"].append(m["rows"][3]), "is there twice: seed 0, structure structured"),
    ],
)
def test_bad_metrics_are_one_sentence(change, message):
    with pytest.raises(InputError, match=message):
        image_table(broken(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["rows"][0].update(ood_labels=[[1, 2]]), "ood_labels of seed 0 must hold 30"),
        (lambda m: m["data"].pop("ood_classes"), "need data.classes and data.ood_classes"),
        (lambda m: m["rows"][0].update(reliability={"count": [1]}), "reliability must hold"),
    ],
)
def test_bad_parts_name_the_file_and_leave_nothing(change, message, tmp_path):
    (tmp_path / "metrics.json").write_text(json.dumps(broken(change)))
    with pytest.raises(InputError, match=message) as caught:
        write_image_report(tmp_path)
    assert str(tmp_path / "metrics.json") in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.json"]


def test_bad_history_and_missing_file(tmp_path):
    metrics = made("magnitude", 1)
    metrics["rows"][0]["history"] = [{"val_accuracy": 0.5}]
    with pytest.raises(InputError, match="history of seed 0 must be a list of mappings"):
        KINDS["magnitude"].figures(metrics)
    with pytest.raises(InputError, match="missing or damaged"):
        write_image_report(tmp_path)
