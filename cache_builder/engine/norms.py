"""A model's RMS norms in two kernels: as transformers writes them they are seven, each a pass over every activation.

In a 7B grid on an H200 they took 16 of 130 ms of kernels. PyTorch has the normalisation as one CUDA kernel, float32
inside and rounded once at its end, as the modules round before they multiply by their weight; the weight is multiplied
by itself, so that the result differs from the module's own by the order of one sum in float32. Which modules compute
this is tried, not guessed from their names: others (Gemma's 1 + weight, OLMo 2's later rounding) are left as they are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from itertools import product

import torch
from torch import nn

EPSILONS = ("variance_epsilon", "eps", "epsilon")
SCALES = (1.0, 1e-3)  # an input near zero tells the epsilon
DTYPES = (torch.float32, torch.bfloat16, torch.float16)  # weights may be kept in another type than activations
# The sum is rounded in float32, wherever in bfloat16 that does not decide between two neighbours.
SAME, SHARE = 16 * torch.finfo(torch.float32).eps, 0.98


def two_kernel_norm(module: nn.Module, hidden: torch.Tensor) -> torch.Tensor:
    """What an RMS norm of transformers gives for (..., hidden): normalised in float32, rounded, times the weight."""
    normal = nn.functional.rms_norm(hidden, module.weight.shape, None, _epsilon(module))
    return module.weight * normal


def rms_norms(model: nn.Module) -> list[nn.Module]:
    """Modules of which `two_kernel_norm` gives the result, tried on random activations (on their device)."""
    return [module for module in model.modules() if _may_be(module) and _is(module)]


@contextmanager
def in_two_kernels(norms: Sequence[nn.Module]) -> Iterator[None]:
    """While active, these modules compute by `two_kernel_norm`."""
    # A module whose forward someone has replaced (accelerate, where weights are brought over) keeps it.
    free = [module for module in norms if "forward" not in vars(module)]
    for module in free:
        module.forward = partial(two_kernel_norm, module)
    try:
        yield
    finally:
        for module in free:
            del module.forward


def _epsilon(module: nn.Module) -> float | None:
    found = (getattr(module, name, None) for name in EPSILONS)
    return next((value for value in found if isinstance(value, float)), None)


def _may_be(module: nn.Module) -> bool:
    names = [name for name, _ in module.named_parameters()]
    return (
        type(module).__name__.endswith("RMSNorm")
        and not isinstance(module, nn.RMSNorm)  # one kernel already
        and names == ["weight"]
        and module.weight.ndim == 1
        and not module.weight.is_meta
        and _epsilon(module) is not None
        and "forward" not in vars(module)
        and len(signature(module.forward).parameters) == 1
    )


@torch.inference_mode()
def _is(module: nn.Module) -> bool:
    weight = module.weight
    # Made on the host, from a generator of its own: what anyone draws afterwards is not moved.
    drawn = torch.randn(8, len(weight), generator=torch.Generator().manual_seed(0))
    for scale, dtype in product(SCALES, DTYPES):
        probe = (scale * drawn).to(weight.device, dtype)
        try:
            own, ours = module(probe), two_kernel_norm(module, probe)
        except Exception:  # a kernel for some types alone, or one that torch compiles here and now (2.13: CuTe DSL)
            return False
        if own.shape != ours.shape or own.dtype != ours.dtype:
            return False
        if torch.isclose(ours.float(), own.float(), rtol=SAME, atol=0.0).float().mean() < SHARE:
            return False
    return True
