"""Time our networks against others, eager, compiled and pruned, beside what the machine can do."""

from egnn_prune.cli.bench import main

if __name__ == "__main__":
    main()
