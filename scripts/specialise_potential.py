"""A pretrained potential, made small and fast for your own structures."""

from egnn_prune.cli.jobs import SPECIALISE as main

if __name__ == "__main__":
    main()
