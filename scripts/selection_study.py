"""Selection strategies compared after equally many fine-tuning steps, over seeds."""

from egnn_prune.cli.jobs import SELECTION as main

if __name__ == "__main__":
    main()
