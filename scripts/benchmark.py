"""Time a training step of our EGNN against the layer as the paper writes it."""

from egnn_prune.cli.bench import main

if __name__ == "__main__":
    main()
