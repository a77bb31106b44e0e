"""Small convolutional and fully connected networks, one for each way channels can be coupled."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def conv(before: int, after: int, groups: int = 1, stride: int = 1) -> nn.Sequential:
    layers = [nn.Conv2d(before, after, 3, stride, 1, groups=groups), nn.BatchNorm2d(after)]
    return nn.Sequential(*layers, nn.ReLU())


class Residual(nn.Module):
    """Two convolutions and a shortcut: several layers make the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.inner = conv(3, 8), conv(8, 6)
        self.back = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = torch.relu(x + self.back(self.inner(x)))
        return self.head(x.mean((2, 3)))


class Dense(nn.Module):
    """Features are joined: one layer reads two groups, at an offset."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = conv(3, 6), conv(6, 4), conv(10, 8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        x = self.c(torch.cat([self.b(x), x], 1))
        return self.head(x.mean((2, 3)))


class Squeeze(nn.Module):
    """Squeeze and excitation: channels are multiplied by numbers that are never zero."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.down, self.up = conv(3, 8), nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.depthwise, self.head = conv(8, 8, groups=8), nn.Linear(8, 5)
        for layer in (self.down, self.up):  # fresh ones hardly tell one channel from another
            nn.init.normal_(layer.weight, std=2.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        scale = torch.sigmoid(self.up(nn.functional.silu(self.down(x.mean((2, 3), keepdim=True)))))
        return self.head(torch.sigmoid(self.depthwise(x * scale)).mean((2, 3)))


class PerToken(nn.Module):
    """Linear layers over ``[B, T, C]``."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down, self.head = nn.Linear(3, 12), nn.Linear(12, 7), nn.Linear(7, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.gelu(self.up(x.flatten(2).transpose(1, 2)))
        return self.head(torch.tanh(self.down(x)).mean(1))


class FoldedTokens(PerToken):
    """The same with tokens as rows: which sample a row belongs to cannot be seen."""

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        hidden = self.down(nn.functional.gelu(self.up(tokens.flatten(0, 1))))
        return self.head(hidden.unflatten(0, tokens.shape[:2]).mean(1))


def vgg() -> nn.Module:
    head = [nn.Flatten(), nn.Linear(8 * 16, 10), nn.ReLU(), nn.Dropout(), nn.Linear(10, 5)]
    features = [conv(3, 6), nn.MaxPool2d(2), conv(6, 8), nn.AdaptiveAvgPool2d(4)]
    return nn.Sequential(*features, *head)


def mlp() -> nn.Module:
    shapes = [nn.Flatten(), nn.Linear(192, 12), nn.BatchNorm1d(12), nn.PReLU(12)]
    return nn.Sequential(*shapes, nn.Linear(12, 9), nn.Sigmoid(), nn.Linear(9, 5))


def grouped() -> nn.Module:
    middle = [conv(8, 16, groups=4), conv(16, 12, groups=2), conv(12, 12, groups=12)]
    return nn.Sequential(conv(3, 8), *middle, conv(12, 6), nn.Flatten(), nn.Linear(384, 5))


def generator() -> nn.Module:
    up = [nn.ConvTranspose2d(6, 8, 2, 2), nn.InstanceNorm2d(8, affine=True), nn.Tanh()]
    return nn.Sequential(conv(3, 6), *up, nn.ConvTranspose2d(8, 1, 2), nn.Flatten())


#: Each with the number of its groups and the channels in them.
NETWORKS = {
    "residual": (Residual, [8, 6]),
    "dense": (Dense, [6, 4, 8]),
    "squeeze": (Squeeze, [8, 4]),
    "tokens": (PerToken, [12, 7]),
    "folded": (FoldedTokens, [12, 7]),
    "vgg": (vgg, [6, 8, 10]),
    "mlp": (mlp, [12, 9]),
    "grouped": (grouped, [2, 4, 6, 6]),
    "generator": (generator, [6, 8]),
}


@torch.no_grad()
def randomised(network: nn.Module, seed: int = 0) -> nn.Module:
    """Random statistics and affine weights in all norms: fresh ones hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        for name in ("weight", "bias", "running_mean", "running_var"):
            tensor = getattr(module, name, None)
            if "Norm" in type(module).__name__ and tensor is not None:
                low = 0.5 if name in ("weight", "running_var") else -0.5
                tensor.uniform_(low, low + 1, generator=generator)
    return network.eval()
