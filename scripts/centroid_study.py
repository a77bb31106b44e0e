"""The centroid task: pruned and trained on uncertain graphs, against ordinary training."""

from egnn_prune.cli.jobs import CENTROID as main

if __name__ == "__main__":
    main()
