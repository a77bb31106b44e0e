"""Compare ways of choosing channels with the dense baseline, over seeds."""

from egnn_prune.cli.jobs import COMPARE as main

if __name__ == "__main__":
    main()
