"""Uncertainty methods on dense and pruned networks, before and after calibration."""

from egnn_prune.cli.jobs import CALIBRATION as main

if __name__ == "__main__":
    main()
