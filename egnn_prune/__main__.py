"""``python -m egnn_prune`` is the command ``egnn-prune``."""

from egnn_prune.cli.main import main

main()
