"""What each metric means, in a sentence, for the end of the report."""

from __future__ import annotations

GLOSSARY: tuple[tuple[str, str], ...] = (
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
        "Test molecules resemble the training set. Out-of-distribution (OOD) molecules were "
        "held out because they differ from it.",
    ),
    (
        "standard deviation (std)",
        "The model's own estimate of its error for one molecule, including both the noise it "
        "expects and the uncertainty of its weights (the epistemic part).",
    ),
    (
        "calibration",
        "Molecules are put into bins of equal count by predicted standard deviation. On the "
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
        "uncertainty orders the molecules by error; 0: it says nothing about it.",
    ),
    (
        "recalibration",
        "One map from predicted to corrected standard deviations, fitted on validation molecules "
        "only and stored with the model; predictions stay as they are. An arrow shows a number "
        "before → after.",
    ),
    (
        "ENCE",
        "Expected normalised calibration error: the mean over bins of similar error bars of the "
        "relative gap between error bar and error. Lower is better, no unit; 0.1 means that error "
        "bars are wrong by about 10 %. True error bars score a few hundredths to a tenth, not 0, "
        "because a bin holds few molecules.",
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
        "Share of molecules whose true value lies in the interval that should hold 90 % of them "
        "(± 1.645 std). Nominal is 0.90, no unit: less is overconfident, more is too cautious.",
    ),
    (
        "AUSE",
        "Area under the sparsification error: how much more error is left than with perfect "
        "ranking when the most uncertain molecules are taken out, relative to the error of all. "
        "Lower is better, no unit; 0 means that uncertainty ranks molecules as their errors do. "
        "Rescaling the error bars does not change it.",
    ),
    (
        "OOD AUROC",
        "Probability that a random OOD molecule is given more uncertainty than a random test "
        "molecule. Higher is better, no unit: 1 tells them apart always, 0.5 is chance.",
    ),
    (
        "equivariance error",
        "How much the prediction changes when the molecule is rotated, reflected or moved. It "
        "should be at the level of floating-point rounding.",
    ),
    (
        "MACs",
        "Multiply-accumulate operations for one molecule of average size, a measure of "
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
    (
        "per-element reference",
        "A linear fit of the target on the number of atoms of each element. What is left after "
        "subtracting it is the part that depends on bonding and geometry.",
    ),
)
