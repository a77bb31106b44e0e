"""What this machine can do at best, measured here: products of given shapes, SiLUs, copies."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from egnn_prune.bench.work import Product, Work
from egnn_prune.system.timing import milliseconds

BLOCK = 1024
"""Rows of a block that stays in a core's cache."""
SQUARE = Product(BLOCK, 256, 256)
"""A product at about the best rate, for those whose shapes are left open."""
_LEAST_SECONDS, _LEAST_REPEATS = 0.03, 4


@dataclass
class Ceilings:
    """Rates of one device with the threads that are set, each the best of several tries.

    Attributes:
        device: where.
        products: GFLOP/s of each shape; measured when first asked for.
        silu: SiLUs a nanosecond.
        silu_gradient: differentiated SiLUs a nanosecond.
        copy: GB/s, bytes read and bytes written both counted.
    """

    device: str
    products: dict[Product, float] = field(default_factory=dict)
    silu: float = 0.0
    silu_gradient: float = 0.0
    copy: float = 0.0

    @classmethod
    def measured(cls, device: str) -> Ceilings:
        """Activations and copies at once; products wait for their shapes."""
        # 128 KiB lie in any core's cache; a GPU needs millions at once
        size = 2**15 if torch.device(device).type == "cpu" else 2**24
        x, y, g = (torch.randn(size, device=device) for _ in range(3))
        big, other = (torch.zeros(2**24, device=device) for _ in range(2))

        def rate(amount: int, run: Callable[[], object]) -> float:
            return amount / (1e6 * least_ms(run, device))

        silu, gradient = torch.ops.aten.silu.out, torch.ops.aten.silu_backward.grad_input
        return cls(
            device,
            silu=rate(size, lambda: silu(x, out=y)),
            silu_gradient=rate(size, lambda: gradient(g, x, grad_input=y)),
            copy=rate(8 * big.numel(), lambda: big.copy_(other)),
        )

    def gflops(self, product: Product) -> float:
        """Of the shape as it is, or in blocks of its rows, whichever is faster."""
        if product not in self.products:
            whole = product.flops / (1e6 * least_ms(*_multiplication(product, self.device)))
            self.products[product] = max(whole, self._blocked(product))
        return self.products[product]

    def _blocked(self, product: Product) -> float:
        """The rate of a block of the long side: rows of a result, or what is summed over."""
        block = Product(min(product.m, BLOCK), min(product.k, BLOCK), min(product.n, BLOCK))
        if block == product or torch.device(self.device).type != "cpu":
            return 0.0
        return block.flops / (1e6 * least_ms(*_multiplication(block, self.device)))

    def floor_ms(self, work: Work) -> float:
        """The time that the work takes at these rates.

        On a CPU products and activations share the same cores, so their times add; bytes can move
        meanwhile and count only where they take longer.
        """
        products = sum(p.flops / (1e6 * self.gflops(p)) for p in work.products)
        if work.other_flops:
            products += work.other_flops / (1e6 * self.gflops(SQUARE))
        activations = work.activations / self.silu if self.silu else 0.0
        if work.activation_gradients:
            activations += work.activation_gradients / self.silu_gradient
        moving = work.bytes / self.copy if self.copy else 0.0
        return max(products + activations / 1e6, moving / 1e6)

    def says(self) -> str:
        """The rates in one line; of products the fastest."""
        best = max(self.products.values(), default=float("nan"))
        return (
            f"products up to {best:.1f} GFLOP/s, SiLU {1e3 * self.silu:.0f} M/s (its gradient "
            f"{1e3 * self.silu_gradient:.0f} M/s), copies {self.copy:.1f} GB/s"
        )


def _multiplication(product: Product, device: str) -> tuple[Callable[[], Tensor], str]:
    a = torch.randn(product.m, product.k, device=device)
    b = torch.randn(product.k, product.n, device=device)
    out = torch.empty(product.m, product.n, device=device)
    return lambda: torch.mm(a, b, out=out), device


def least_ms(run: Callable[[], object], device: str) -> float:
    """The shortest of several calls: nothing but the machine itself can be in it.

    Short calls are repeated within one reading of the clock.
    """
    run()
    once = milliseconds(run, device)
    inner = max(1, int(0.5 / max(once, 1e-3)))
    times: list[float] = []
    end = time.perf_counter() + _LEAST_SECONDS
    while len(times) < _LEAST_REPEATS or time.perf_counter() < end:
        times.append(milliseconds(lambda: [run() for _ in range(inner)], device) / inner)
    return min(times)
