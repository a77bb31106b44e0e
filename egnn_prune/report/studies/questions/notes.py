"""What a reader of the study's tables must know beside them."""

HEAD = """\
# What the study found

Written by `python scripts/draw_study.py` from the rows in `docs/study`; the questions, the arms and
the rule behind each answer are [the protocol](study.md). Means ± standard deviations over seeds,
95 % t-intervals of paired differences. Rows of each question: {counts}.

- *Full* is SevenNet-0 with the elements of the system, fine-tuned; *cut* lacks 75 % of the
  convolution's copies of irreps and half of its paths and was not trained since; *small* is the
  cut network fine-tuned; *scratch* has its shape and fresh weights; *distilled* is the cut
  network trained on the full one's labels. *Compensated*: what stays was refitted by least
  squares to stand in for what went.
- *Error* is the root mean square of force components on test structures, in meV/Å, unless said
  otherwise. *Frames* are structures of a trajectory; *hot* ones of 3BPA have more energy than any
  at 300 K.
- *Error bars*: of the last layer (*last_layer*), of four read-outs drawn from its posterior
  (*shallow*), of four networks (*committee*). The *distance* of an atom is that of its last
  features to those of the training atoms, the *strain* of a structure its energy above the lowest
  training one.
- *Answers*: yes, if p < 0.05 after Holm's correction over the comparisons of a question and in
  the stated direction; no, if as clear the other way (the reverse) or if the interval lies within
  what the protocol calls negligible; otherwise not decided.

![A panel for each question](../figures/study.png)

"""

NOTES = {
    "scratch": (
        "Ethanol (in the full form, as below). Each arm and number of steps has the learning "
        "rate that validation chose. Steps of 5 structures: 200, 600 and 2,000 of them show "
        "1,000, 3,000 and 10,000 structures, so that 8,000 are seen 1.25 times at most. The "
        "last table: medians over the seeds, by a power law between the numbers of steps that "
        "were run, each with a one-cycle schedule of its own; processor seconds are of the fits "
        "alone, without scores, cut and search for rates, on a machine that did other things, "
        "too."
    ),
    "budgets": (
        "Ethanol. Errors after fine-tuning; in parentheses before it, and the mean time that "
        "was measured. Sizes come in steps, so that neighbouring budgets can hold the same "
        "network; none is small enough for the last one."
    ),
    "calibration": (
        "Losses are nats a force component. Accuracy loss is measured against the full network "
        "with error bars of the last layer. Where errors are r times larger under the same "
        "error bars, calibration loss grows like r²/2 and accuracy loss like ln r: that the "
        "first one is larger right after the cut is no surprise, how large it is may be. Stars "
        "are given when all seeds are there."
    ),
    "forgetting": (
        "Damage and its tables are of 3BPA, 150 test and 150 hot frames together; hot frames "
        "are hot by their energy, so strain tells the two kinds apart, and error bars of forces "
        "grow with the distance, so these two are nearly one measure. Damage can be negative, "
        "which errors cannot: noise with the mean and the spread of either kind stands beside "
        "the share in the worst tenth, and that of the network's own error. Damage of an atom "
        "is the growth of the length of its force's error. The other tables are of ethanol; a "
        "difference to the full network that another seed of it has, too, is none of the "
        "pruning."
    ),
    "uncertainty": (
        "3BPA. What to fine-tune on: the cut network learns 50 of 200 frames that the full one "
        "did not see. What to label: 15 of 200 for a network that knows 200 (stretched bonds: "
        "labelled by the teacher). When to ask: a tenth of 300 (or 158) test frames; removed is "
        "what the error bars of the small network find if the answers are true (DFT), or if the "
        "full network gives them."
    ),
    "freezing": (
        "Ethanol, 200 steps of 5 structures; rates chosen on validation (seed 0, 200 structures) "
        "for each arm."
    ),
}
