"""Experiments over seeds that answer one question each; every one can be interrupted."""
