"""One small file for every kind of experiment."""
