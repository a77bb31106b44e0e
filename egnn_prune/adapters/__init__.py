"""Other people's networks as prunable modules.

Pretrained potentials: :func:`load` gives SevenNet's, NequIP's and MACE's as
:class:`AdoptedPotential`, :func:`drop_odd_paths`, :func:`drop_species` and
:func:`collapse_linear_readout` make them smaller without training. A :class:`Committee` of several
says by their disagreement how sure they are.

Networks of plain torch and PyG: try :class:`TracedNetwork` first, which finds their channel groups.
Where it finds none, write a subclass of :class:`egnn_prune.channels.Prunable` here, which declares
``channel_groups()`` and builds ``resized(keep)``, and test it with
:func:`egnn_prune.testing.assert_prunable`. To be saved and loaded by name it needs an entry in
``BUILDERS`` (:mod:`egnn_prune.deployment.checkpoint`). How a network is called with a batch:
:mod:`egnn_prune.pruning.calling`. :class:`OwnRegressor` gives them error bars.
"""

from typing import TYPE_CHECKING, Any

from egnn_prune.adapters.own_regressor import OwnRegressor
from egnn_prune.adapters.plain_radials import plain_radials
from egnn_prune.adapters.traced import TracedNetwork
from egnn_prune.system.lazy_imports import lazy_names

if TYPE_CHECKING:
    from egnn_prune.adapters.choice import copies_and_paths
    from egnn_prune.adapters.committee import Committee
    from egnn_prune.adapters.e3nn_layout import UnknownLayout
    from egnn_prune.adapters.loading import PRETRAINED, load
    from egnn_prune.adapters.potential import AdoptedPotential
    from egnn_prune.adapters.sevennet_native import write_sevennet
    from egnn_prune.adapters.steps import (
        collapse_linear_readout,
        drop_odd_paths,
        drop_species,
        from_scratch,
    )
    from egnn_prune.ase.adopted import calculator
else:  # e3nn, which tracing does without
    _here = lazy_names(
        __name__,
        {
            "choice": ("copies_and_paths",),
            "committee": ("Committee",),
            "e3nn_layout": ("UnknownLayout",),
            "loading": ("PRETRAINED", "load"),
            "potential": ("AdoptedPotential",),
            "sevennet_native": ("write_sevennet",),
            "steps": (
                "collapse_linear_readout",
                "drop_odd_paths",
                "drop_species",
                "from_scratch",
            ),
        },
    )

    def __getattr__(name: str) -> Any:
        """Hand on ``calculator``, which lives with ASE's, and the names of modules here."""
        if name == "calculator":
            from egnn_prune.ase.adopted import calculator

            return calculator
        return _here(name)


__all__ = [
    "PRETRAINED",
    "AdoptedPotential",
    "Committee",
    "OwnRegressor",
    "TracedNetwork",
    "UnknownLayout",
    "calculator",
    "collapse_linear_readout",
    "copies_and_paths",
    "drop_odd_paths",
    "drop_species",
    "from_scratch",
    "load",
    "plain_radials",
    "write_sevennet",
]
