"""Models at work on graphs whose answer is known: predictions, errors, error bars, cost."""
