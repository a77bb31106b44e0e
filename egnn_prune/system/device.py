"""Which device to use."""

from __future__ import annotations

import torch

from egnn_prune.errors import ConfigError


def choose_device(name: str = "auto") -> torch.device:
    """``"auto"`` takes CUDA when present; otherwise ``"cpu"``, ``"cuda"`` or ``"cuda:N"``.

    Raises:
        ConfigError: the name is unknown, or that GPU is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"device={name} was asked for, but this machine has {torch.cuda.device_count()} CUDA "
            "devices that torch can use; use device=auto"
        )
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device must be auto, cpu, cuda or cuda:N, not {name!r}")
    return device
