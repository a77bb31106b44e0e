"""What every report shares: style, statistics, words, files."""
