"""Uncertainty methods on dense and pruned networks, before and after recalibration."""

from egnn_prune.cli.hydra_app import command
from egnn_prune.configs.settings import CalibrationStudySettings

PURPOSE = """\
Does pruning harm calibration more than accuracy, and does recalibration mend it? Trains networks
once per seed and recipe, prunes them to every sparsity, fine-tunes each, gives them every
uncertainty method, recalibrates on the validation split, and judges the error bars on the test and
out-of-distribution splits. Writes calibration.csv, calibration.txt and calibration.png.
Interrupted, the same command goes on where it stopped. Settings that are not listed first are
those of the main job, except training.max_epochs=14 and training.lr=4e-3. About 90 minutes on two
slow cores with workers=2."""


def main(settings: CalibrationStudySettings) -> None:
    from egnn_prune.studies.calibration import run_calibration_study

    run_calibration_study(settings)


if __name__ == "__main__":
    command(main, CalibrationStudySettings, "calibration", PURPOSE)
