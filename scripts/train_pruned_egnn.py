"""The main job: train, select uncertain graphs, prune, freeze, fine-tune, compact, compare."""

from egnn_prune.cli.jobs import TRAIN as main

if __name__ == "__main__":
    main()
