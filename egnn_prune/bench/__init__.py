"""The benchmark: networks of ours and of others on equal inputs, taking turns, beside a floor."""
