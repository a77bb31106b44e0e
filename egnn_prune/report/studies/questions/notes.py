"""What a reader of the study's tables must know beside them."""

NOTES = {
    "scratch": (
        "Force RMSE of test structures in meV/Å; each arm and number of steps has the learning "
        "rate that validation chose. The last table: medians over the seeds, by a power law "
        "between the numbers of steps that were run, each with a one-cycle schedule of its own; "
        "processor seconds are of the fits alone, without scores, cut and search for rates."
    ),
    "budgets": (
        "Force RMSE of test structures in meV/Å after fine-tuning, before it in parentheses. No "
        "network of the ladder is small enough for a budget where a cell says what it takes."
    ),
    "calibration": (
        "Both losses are nats a force component. Accuracy loss is measured against the full "
        "network with error bars of the last layer; below 0 the pruned network is more accurate "
        "(it learns at a higher rate than the full one, for as many steps). Stars are given when "
        "all seeds are there."
    ),
    "forgetting": (
        "The first two tables are of the second system, of test and hot frames together; hot "
        "frames are hot by their energy, so strain tells the two kinds apart, and error bars of "
        "forces grow with the distance, so these two are nearly one measure. Damage can be "
        "negative: noise of the same mean and spread stands beside the share in the worst tenth. "
        "The other tables are of the first system."
    ),
    "uncertainty": "Force RMSE in meV/Å, of the second system.",
    "freezing": "Force RMSE of test structures in meV/Å, of the first system.",
}
