"""Predict structures with a trained model, each with its error bar."""

from egnn_prune.cli.predict import main

if __name__ == "__main__":
    main()
