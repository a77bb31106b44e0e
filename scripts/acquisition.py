"""Learning curves of pool-based acquisition, over seeds."""

from egnn_prune.cli.jobs import ACQUISITION as main

if __name__ == "__main__":
    main()
