"""The main job: train, select, prune, fine-tune, compact, compare."""
