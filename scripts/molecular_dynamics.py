"""Simulate a molecule with a trained model at constant energy."""

from egnn_prune.cli.md import main

if __name__ == "__main__":
    main()
