"""The centroid task: pruned and trained on uncertain graphs, against ordinary training."""

from hydra.core.config_store import ConfigStore

from egnn_prune.cli.hydra_app import command
from egnn_prune.studies.centroid import CentroidStudySettings, run_centroid_study

PURPOSE = """\
A small EGNN learns where masses move to. The first half of its training sees ordinary graphs. The
second half sees ordinary ones (baseline), those of which the network is least sure, or equally many
random ones, with a share of the channels pruned when it begins. Writes centroid.csv, a table of
errors and of their differences to the baseline, paired by seed, and a figure. Interrupted, the same
command goes on where it stopped."""

if __name__ == "__main__":
    ConfigStore.instance().store(name="base_centroid_study", node=CentroidStudySettings)
    command(run_centroid_study, CentroidStudySettings, "centroid_study", PURPOSE)
