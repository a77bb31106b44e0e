"""What each word of a report on images means, in a sentence."""

from __future__ import annotations

_TERMS: tuple[tuple[str, str, str], ...] = (
    ("", "dense", "The full network. Everything is compared with it."),
    (
        "",
        "sparsity",
        "Share of the neurons, filters (structured) or single weights (unstructured) that was "
        "removed. 0 is the dense network.",
    ),
    (
        "",
        "structured, unstructured",
        "Structured pruning takes out whole neurons or filters, so that the network becomes "
        "smaller. Unstructured pruning sets single weights to zero, which are still stored and "
        "multiplied.",
    ),
    ("lottery", "one-shot", "All is removed at once; the weights that are left are trained on."),
    (
        "lottery",
        "rewound",
        "The weights that are left are set back to what they were before training (the lottery "
        "ticket of Frankle and Carbin 2019), then trained.",
    ),
    (
        "lottery",
        "re-initialised",
        "The pruned shape gets new random weights and is trained: what is left when only the shape "
        "of the ticket is kept.",
    ),
    (
        "lottery",
        "iterative",
        "Removed in n rounds of the ratio 1 - (1 - p)^(1/n), with training between them, to the "
        "sparsity p.",
    ),
    (
        "lottery structured magnitude",
        "trained on, trained longer",
        "The dense network trained for the extra epochs that the pruned ones get: the control "
        "that tells pruning from training.",
    ),
    (
        "structured",
        "scratch",
        "A network of the pruned shape that was trained from random weights.",
    ),
    (
        "magnitude structured",
        "random",
        "As much is removed, but chosen at random: what the criterion has to beat.",
    ),
    (
        "incremental",
        "contribution",
        "How much a neuron or a connection adds to what it feeds: its weights times the size of "
        "the values that pass through. The least contributing ones go while it is trained.",
    ),
    (
        "incremental",
        "activations",
        "Memory for the values between the layers in a forward pass of one batch, in bytes.",
    ),
    (
        "selection",
        "most and least uncertain",
        "Training images whose prediction, with dropout where the network has it, has the largest "
        "or the smallest entropy.",
    ),
    ("", "accuracy", "Share of the test images whose most probable class is the true one."),
    (
        "",
        "confidence",
        "The largest of the probabilities that the network gives to the classes of an image.",
    ),
    (
        "",
        "ECE",
        "Expected calibration error: images are put into bins by confidence; mean gap between the "
        "confidence and the accuracy of a bin, weighted by its images. Lower is better, no unit; "
        "0.1 means that confidence is wrong by 10 points on average.",
    ),
    (
        "",
        "ECE after temperature",
        "The same after dividing the logits by one number, fitted on validation images only "
        "(Guo et al. 2017). Accuracy does not change.",
    ),
    (
        "lottery",
        "UCE",
        "Uncertainty calibration error: the same with the normalised entropy of the prediction as "
        "uncertainty and the error as what it should match. Lower is better, no unit.",
    ),
    (
        "",
        "NLL",
        "Negative log-likelihood of the true class, mean over the test images, in nats. Lower is "
        "better; it punishes confident mistakes.",
    ),
    (
        "lottery selection",
        "OOD AUROC",
        "Out-of-distribution images show none of the known classes. Probability that a random one "
        "is given more uncertainty than a random test image. Higher is better: 1 tells them apart "
        "always, 0.5 is chance.",
    ),
    (
        "lottery",
        "Monte Carlo dropout",
        "The mean prediction of many passes with dropout switched on (Gal and Ghahramani 2016).",
    ),
    (
        "",
        "epochs of the last fit",
        "Passes over the training images, the patience included, of the fit after the (last) "
        "pruning; of the dense network, of its whole training.",
    ),
    (
        "",
        "MACs",
        "Multiply-accumulate operations of a forward pass of one image: arithmetic that does not "
        "depend on the machine.",
    ),
    (
        "",
        "95 % interval",
        "Student's t-interval of the mean over the seeds, which differ in the initial weights and "
        "the order of the images. Differences and ratios are taken seed by seed first.",
    ),
)


def glossary(kind: str) -> list[tuple[str, str]]:
    """The terms of one kind of experiment with their meanings."""
    return [(term, text) for kinds, term, text in _TERMS if not kinds or kind in kinds.split()]
