"""Controls that a pruning method has to beat: shuffled masks, other weights, the bare shape."""

from egnn_prune.cli.jobs import SANITY as main

if __name__ == "__main__":
    main()
