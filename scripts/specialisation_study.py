"""Pretrained potentials made small for one system, against the same shape from scratch."""

from egnn_prune.cli.jobs import SPECIALISATION as main

if __name__ == "__main__":
    main()
