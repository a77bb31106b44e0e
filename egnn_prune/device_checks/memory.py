"""What happens when the device's memory is full: one sentence, and nothing is left behind."""

from __future__ import annotations

import gc

import torch
from torch_geometric.loader import DataLoader

from egnn_prune.api import pruning as api
from egnn_prune.device_checks.checking import CheckContext, Found, Skipped, require
from egnn_prune.device_checks.graphs import egnn, molecules
from egnn_prune.errors import out_of_memory_sentence

#: Bytes that the training may have: less than a batch of it needs, more than its weights do.
ALLOWED = 64 << 20


def out_of_memory(context: CheckContext, found: Found) -> None:
    """Too large a batch ends in the sentence that the scripts print; the next one works."""
    if not context.on_gpu:
        raise Skipped("only a GPU's memory can be made small for one process")
    graphs = list(molecules().split("train")[:4000])
    model = egnn(context)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(context.device)
    total = torch.cuda.get_device_properties(context.device).total_memory
    reserved = torch.cuda.memory_reserved(context.device)
    torch.cuda.set_per_process_memory_fraction((reserved + ALLOWED) / total, context.device)
    sentence = None
    try:
        api.fine_tune(model, DataLoader(graphs, 4000), steps=1, device=str(context.device))
    except Exception as error:
        sentence = out_of_memory_sentence(error)
        require(sentence is not None, f"another error: {type(error).__name__}: {error}")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, context.device)
    require(sentence is not None, "a batch of 4,000 molecules fitted into 64 MiB")
    found["said"] = str(sentence)
    model.to("cpu")
    gc.collect()
    torch.cuda.empty_cache()
    after = torch.cuda.memory_allocated(context.device)
    found["MiB left behind"] = (after - before) / 2**20
    require(after - before < 16 << 20, "memory is still taken after the error")
    api.fine_tune(egnn(context), DataLoader(graphs[:64], 32), steps=4, device=str(context.device))
