"""Where graphs come from: ``load_NAME`` in ``NAME.py`` reads one source, and what it needs alone.

A new source is a module here, a name in :data:`egnn_prune.data.SOURCES` and among the choices of
``data.name`` (:mod:`egnn_prune.configs.settings`), a file ``configs/data/NAME.yaml``, and, where it
reads other files than ``data.path``, ``test`` and ``ood``, a line in :mod:`egnn_prune.data.inputs`.
"""
