"""Frames and cells of structures, as the report draws them."""

from __future__ import annotations

import numpy as np
import torch
from torch_geometric.data import Data

from egnn_prune.evaluation.drawn_structures import frames_and_cells

CELL = torch.tensor([[[3.0, 0, 0], [1, 4, 0], [0.5, 0, 20]]])


def test_a_slab_repeats_along_two_vectors_and_a_molecule_along_none():
    slab = Data(row=torch.tensor([7]), cell=CELL, pbc=torch.tensor([[True, True, False]]))
    crystal, molecule = Data(row=torch.tensor([8]), cell=CELL), Data(row=torch.tensor([9]))
    found = frames_and_cells([slab, crystal, molecule])
    assert found["frame"].tolist() == [7, 8, 9]
    assert found["cell"].tolist() == [
        [[3, 0, 0], [1, 4, 0], [0, 0, 0]],
        CELL[0].tolist(),
        np.zeros((3, 3)).tolist(),
    ]


def test_the_number_in_the_users_file_comes_first_and_none_means_none():
    known = Data(row=torch.tensor([0]), record=torch.tensor([41]))
    assert frames_and_cells([known]).keys() == {"frame"}
    assert frames_and_cells([known])["frame"].tolist() == [41]
    assert frames_and_cells([known, Data()]) == {}
