"""What has to work on a GPU, as a list of checks that anybody with one can run.

``scripts/check_cuda.py`` runs them. A check is a function ``(bench, found) -> None``: it writes its
numbers into ``found`` as it gets them and raises when one is wrong. To add one, write the function
and name it in :data:`CHECKS`.
"""

from egnn_prune.device_checks import (
    edge_kernel_speed,
    edge_kernels,
    graphs,
    images,
    jobs,
    memory,
    speed,
    use,
)
from egnn_prune.device_checks.checking import Check, CheckContext, DeviceLost, table, work_through

#: In the order in which they run: cheap and telling ones first. Their seconds, for one data-centre
#: GPU, add up to 8 minutes.
CHECKS: tuple[Check, ...] = (
    Check("same numbers as the CPU", graphs.same_numbers, 30),
    Check("symmetry, masked = compact", graphs.symmetry_and_compaction, 20),
    Check("pruning by every criterion", graphs.criteria, 22),
    Check("ensembles, MC dropout, calibration", graphs.error_bars, 22),
    Check("fine-tuning on selected graphs", jobs.selected_graphs, 30),
    Check("predictions and dynamics", use.predictions_and_dynamics, 30),
    Check("training step and latency", speed.against_the_textbook, 22),
    Check("edge kernels", edge_kernels.edge_kernels, 60),
    Check("speed of the edge kernels", edge_kernel_speed.speed, 70),
    Check("out of memory", memory.out_of_memory, 14),
    Check("training on forces", jobs.forces, 30),
    Check("main job", jobs.main_job, 72),
    Check("images: ResNets (S2)", images.residual_networks, 58),
)

__all__ = ["CHECKS", "Check", "CheckContext", "DeviceLost", "table", "work_through"]
