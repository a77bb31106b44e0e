"""Where graphs come from: ``load_NAME`` in ``NAME.py`` reads one source, and what it needs alone.

A new source is a module here and a name in :data:`egnn_prune.data.SOURCES`.
"""
