"""Experiments on images: the same pruning engine and error bars on CNNs, ResNets and MLPs."""

from egnn_prune.cli.jobs import VISION as main

if __name__ == "__main__":
    main()
