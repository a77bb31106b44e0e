"""The residual networks for small images of He et al. 2016, Section 4.2."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from egnn_prune.vision.networks.checks import image_shape, one_of
from egnn_prune.vision.networks.layers import ChannelsLast

WIDTHS = (16, 32, 64)


class PaddedShortcut(nn.Module):
    """Option A: every other pixel, and zeros for the channels that the input does not have.

    Args:
        missing: number of channels of zeros.
        stride: of the pixels that are kept.

    Shapes:
        ``[B, C, H, W]`` to ``[B, C + missing, ceil(H / stride), ceil(W / stride)]``.
    """

    def __init__(self, missing: int, stride: int) -> None:
        super().__init__()
        self.missing, self.stride = missing, stride

    def forward(self, x: Tensor) -> Tensor:
        """Thin out and pad."""
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.missing))


def projection(before: int, after: int, stride: int) -> nn.Module:
    """Option B: a strided 1 x 1 convolution and batch norm."""
    return nn.Sequential(
        nn.Conv2d(before, after, 1, stride, bias=False),
        nn.BatchNorm2d(after),
    )


class Block(nn.Module):
    r"""Two 3 x 3 convolutions beside a shortcut s: :math:`\mathrm{ReLU}(F(x) + s(x))`.

    Args:
        before: channels of the input.
        after: channels of the output.
        stride: of the first convolution.
        shortcut: "A" or "B", where the shapes differ; else the identity.

    Shapes:
        ``[B, before, H, W]`` to ``[B, after, H / stride, W / stride]``, rounded up.
    """

    def __init__(self, before: int, after: int, stride: int, shortcut: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut: nn.Module = nn.Identity()
        if before != after or stride > 1:
            padded = shortcut == "A"
            self.shortcut = (
                PaddedShortcut(after - before, stride)
                if padded
                else projection(before, after, stride)
            )

    def forward(self, x: Tensor) -> Tensor:
        """The residual, added to the shortcut."""
        residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        return self.relu(residual + self.shortcut(x))


class CifarResNet(nn.Module):
    """A 3 x 3 stem, three stages of blocks with 16, 32 and 64 channels, global average, read-out.

    Args:
        channels: of the images.
        classes: number of logits.
        blocks: in each stage; n of them make 6 n + 2 layers.
        shortcut: "A" (padded with zeros, as in the paper) or "B" (projected).
        dropout: probability, before the read-out.

    Shapes:
        ``[B, channels, H, W]`` to ``[B, classes]``.
    """

    def __init__(
        self, channels: int, classes: int, blocks: int, shortcut: str = "A", dropout: float = 0.0
    ) -> None:
        super().__init__()
        before = WIDTHS[0]
        self.layout = ChannelsLast()
        self.conv1 = nn.Conv2d(channels, before, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(before)
        self.relu = nn.ReLU(inplace=True)
        stages = []
        for stage, after in enumerate(WIDTHS):
            first = Block(before, after, 2 if stage else 1, shortcut)
            rest = [Block(after, after, 1, shortcut) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(first, *rest))
            before = after
        self.layer1, self.layer2, self.layer3 = stages
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else nn.Identity()
        self.fc = nn.Linear(before, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """Logits of a batch of images."""
        x = self.relu(self.bn1(self.conv1(self.layout(x))))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(self.dropout(torch.flatten(self.avgpool(x), 1)))


def _resnet(
    depth: int,
    shape: tuple[int, ...],
    classes: int,
    *,
    dropout: float = 0.0,
    shortcut: str = "A",
) -> nn.Module:
    channels, _, _ = image_shape(shape, f"resnet{depth}", least=4)
    one_of(shortcut, ("A", "B"), "network.shortcut")
    return CifarResNet(channels, classes, (depth - 2) // 6, shortcut, dropout)


#: 0.27, 0.46 and 0.85 million parameters (He et al. 2016, Table 6).
resnet20, resnet32, resnet56 = (partial(_resnet, depth) for depth in (20, 32, 56))
