"""What has to work on a GPU, as a list of checks that anybody with one can run.

``scripts/check_cuda.py`` runs them. A check is a function ``(bench, found) -> None``: it writes its
numbers into ``found`` as it gets them and raises when one is wrong. To add one, write the function
and name it in :data:`CHECKS`.
"""

from egnn_prune.device_checks import graphs, images, jobs, memory, speed, use
from egnn_prune.device_checks.checking import Check, CheckContext, DeviceLost, table, work_through

#: In the order in which they run: cheap and telling ones first. Their seconds, for one data-centre
#: GPU, add up to 8 minutes.
CHECKS: tuple[Check, ...] = (
    Check("same numbers as the CPU", graphs.same_numbers, 40),
    Check("symmetry, masked = compact", graphs.symmetry_and_compaction, 30),
    Check("pruning by every criterion", graphs.criteria, 30),
    Check("ensembles, MC dropout, calibration", graphs.error_bars, 30),
    Check("fine-tuning on selected graphs", jobs.selected_graphs, 40),
    Check("predictions and dynamics", use.predictions_and_dynamics, 40),
    Check("training step and latency", speed.against_the_textbook, 30),
    Check("out of memory", memory.out_of_memory, 20),
    Check("training on forces", jobs.forces, 40),
    Check("main job", jobs.main_job, 100),
    Check("images: ResNets (S2)", images.residual_networks, 80),
)

__all__ = ["CHECKS", "Check", "CheckContext", "DeviceLost", "table", "work_through"]
