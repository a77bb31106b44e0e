"""Models in folders as the Hugging Face hub holds them: write, upload, load."""

from egnn_prune.deployment.hub import (
    from_pretrained,
    pretrained_file,
    push_to_hub,
    save_pretrained,
)

__all__ = ["from_pretrained", "pretrained_file", "push_to_hub", "save_pretrained"]
