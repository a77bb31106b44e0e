"""Error against sparsity for several criteria, over seeds."""

from egnn_prune.cli.jobs import CRITERIA as main

if __name__ == "__main__":
    main()
