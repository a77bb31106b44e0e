"""Graphs in batches: their layout, the neighbour search, and the checks of both."""

from egnn_prune.graphs.batches import graph_of_node, graph_pointer, is_periodic, replicate
from egnn_prune.graphs.checks import check_graphs, warn_of_coincident_points
from egnn_prune.graphs.edges import with_edges
from egnn_prune.graphs.pairs import complete_edges, cutoff_edges, edge_vectors, neighbours
from egnn_prune.graphs.skin_list import SkinList
from egnn_prune.graphs.tracing import checked, has_values, is_transformed, must_check, tracing

__all__ = [
    "SkinList",
    "check_graphs",
    "checked",
    "complete_edges",
    "cutoff_edges",
    "edge_vectors",
    "graph_of_node",
    "graph_pointer",
    "has_values",
    "is_periodic",
    "is_transformed",
    "must_check",
    "neighbours",
    "replicate",
    "tracing",
    "warn_of_coincident_points",
    "with_edges",
]
