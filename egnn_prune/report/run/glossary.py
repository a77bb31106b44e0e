"""What each metric means, in a sentence, for the end of the report."""

from __future__ import annotations

from egnn_prune.report.common.wording import Words

_TERMS: tuple[tuple[str, str], ...] = (
    ("dense", "The full network, trained first. Everything is compared with it."),
    (
        "pruned",
        "The dense network after whole channels were removed and the remaining weights were "
        "copied into a smaller network, then trained further.",
    ),
    ("scratch", "A network of the pruned shape trained from random weights."),
    (
        "MAE, RMSE",
        "Mean absolute and root mean square difference between prediction and target. RMSE "
        "weighs large errors more.",
    ),
    (
        "test, OOD",
        "Test {graph}s resemble the training set. Out-of-distribution (OOD) {graph}s were "
        "held out because they differ from it.",
    ),
    (
        "standard deviation (std)",
        "The model's own estimate of its error for one {value}, including both the noise it "
        "expects and the uncertainty of its weights (the epistemic part).",
    ),
    (
        "calibration",
        "All {value}s are put into bins of equal count by predicted standard deviation. On the "
        "diagonal, the error observed in a bin is as large as predicted; above it, the model is "
        "overconfident.",
    ),
    (
        "NLL",
        "Negative log-likelihood of the targets under a normal distribution with the predicted "
        "mean and standard deviation. Lower is better; it punishes large errors and wrong "
        "confidence. It can be negative and depends on the unit.",
    ),
    (
        "Spearman",
        "Rank correlation between absolute error and predicted standard deviation. 1: the "
        "uncertainty orders the {value}s by error; 0: it says nothing about it.",
    ),
    (
        "recalibration",
        "One map from predicted to corrected standard deviations, fitted on validation {graph}s "
        "only and stored with the model; predictions stay as they are. An arrow shows a number "
        "before → after.",
    ),
    (
        "ENCE",
        "Expected normalised calibration error: the mean over bins of similar error bars of the "
        "relative gap between error bar and error. Lower is better, no unit; 0.1 means that error "
        "bars are wrong by about 10 %. True error bars score a few hundredths to a tenth, not 0, "
        "because a bin holds few {value}s.",
    ),
    (
        "CRPS",
        "Continuous ranked probability score: distance between the predicted distribution and the "
        "true value. Lower is better, in the unit of the target; without error bars it is the MAE.",
    ),
    (
        "miscalibration area",
        "Area between the share of true values that intervals should hold and the share that they "
        "hold, over all levels. Lower is better, no unit: 0 is perfect, 0.5 the worst.",
    ),
    (
        "coverage of 90 %",
        "Share of {value}s whose true value lies in the interval that should hold 90 % of them "
        "(± 1.645 std). Nominal is 0.90, no unit: less is overconfident, more is too cautious.",
    ),
    (
        "AUSE",
        "Area under the sparsification error: how much more error is left than with perfect "
        "ranking when the most uncertain {value}s are taken out, relative to the error of all. "
        "Lower is better, no unit; 0 means that uncertainty ranks {value}s as their errors do. "
        "Rescaling the error bars does not change it.",
    ),
    (
        "OOD AUROC",
        "Probability that a random OOD {graph} is given more uncertainty than a random test "
        "{graph}. Higher is better, no unit: 1 tells them apart always, 0.5 is chance.",
    ),
    (
        "equivariance error",
        "{equivariance} It should be at the level of floating-point rounding.",
    ),
    (
        "MACs",
        "Multiply-accumulate operations for one {graph} of average size, a measure of "
        "arithmetic that does not depend on the machine.",
    ),
    (
        "latency",
        "Measured time of one forward pass over a batch on the device named under Provenance.",
    ),
    (
        "ledger",
        "For every layer, how many parameters the dense network has, how many pruning removed, "
        "and how many of the others were frozen or trained.",
    ),
)

_OF_MOLECULES = (
    (
        "per-element reference",
        "A linear fit of the target on the number of atoms of each element. What is left after "
        "subtracting it is the part that depends on bonding and geometry.",
    ),
)

_OF_POSITIONS = (
    (
        "coordinate",
        "One component of the position of one node of one graph. Errors, bins and shares count "
        "coordinates; the interval of the MAE counts graphs, because the errors within one graph "
        "go together.",
    ),
    ("MSE", "Mean squared difference between predicted and true coordinates."),
)


def glossary(run: Words) -> list[tuple[str, str]]:
    """Every term with its meaning, in the words of the run."""
    change = (
        "How far the predicted positions are from turning and moving with the graph."
        if run.positions
        else "How much the prediction changes when the molecule is rotated, reflected or moved."
    )
    terms = [
        (term, text.format(graph=run.graph, value=run.value, equivariance=change))
        for term, text in _TERMS
    ]
    return [*terms, *(_OF_POSITIONS if run.positions else _OF_MOLECULES)]
