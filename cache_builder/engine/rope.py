"""Rotary positions in place: the model's own function, without the copies that it makes of queries and keys.

As transformers writes it, half of every head is negated and joined to the other half anew: on a GPU that copies the
transposed queries and keys, and everything after has another layout in memory. Here the sine is negated instead, once
for all blocks, and the halves are multiplied where they lie. The numbers are the same to the bit: a product's sign is
that of its factors, whichever carries it. Where that holds is tried, and the function is put back after each pass.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from inspect import signature
from types import ModuleType
from typing import Any

import torch
from torch import nn

NAME = "apply_rotary_pos_emb"
ARGUMENTS = ["q", "k", "cos", "sin", "unsqueeze_dim"]
DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def rotate(x: torch.Tensor, cos: torch.Tensor, signed: torch.Tensor) -> torch.Tensor:
    """`x * cos + rotate_half(x) * sin`, the first half of `signed` being that of -sin."""
    half = x.shape[-1] // 2
    turned = torch.empty_like(x)
    torch.mul(x[..., half:], signed[..., :half], out=turned[..., :half])
    torch.mul(x[..., :half], signed[..., half:], out=turned[..., half:])
    return (x * cos).add_(turned)


def rope_modules(model: nn.Module, device: torch.device) -> list[ModuleType]:
    """Modules of transformers that the model is made of and of whose rotary function `rotate` gives the same bits,
    tried on random queries and keys on the device."""
    names = sorted({type(part).__module__ for part in model.modules()})
    places = [sys.modules[name] for name in names if name.startswith("transformers.models.")]
    return [place for place in places if _may_be(place) and _is(place, device)]


@contextmanager
def rope_in_place(places: Sequence[ModuleType]) -> Iterator[None]:
    """While active, these modules rotate by `rotate`."""
    own = [getattr(place, NAME) for place in places]
    for place, function in zip(places, own):
        setattr(place, NAME, partial(_both, function, {}))
    try:
        yield
    finally:
        for place, function in zip(places, own):
            setattr(place, NAME, function)


def _both(own: Callable, seen: dict[int, tuple[Any, Any]], q, k, cos, sin, unsqueeze_dim: int = 1):
    """Queries and keys rotated; what was not tried (a part of each head, mixed types, gradients) the module does."""
    alike = q.dtype == k.dtype == cos.dtype == sin.dtype and q.shape[-1] == k.shape[-1] == cos.shape[-1]
    if not alike or torch.is_grad_enabled():
        return own(q, k, cos, sin, unsqueeze_dim)
    # All blocks get the same sine; holding it keeps its id from being given to another tensor.
    if id(sin) not in seen:
        half = sin.shape[-1] // 2
        seen[id(sin)] = sin, torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
    cos, signed = cos.unsqueeze(unsqueeze_dim), seen[id(sin)][1].unsqueeze(unsqueeze_dim)
    return rotate(q, cos, signed), rotate(k, cos, signed)


def _may_be(place: ModuleType) -> bool:
    function = getattr(place, NAME, None)
    # One that someone has replaced (kernels from elsewhere) stays.
    return getattr(function, "__module__", None) == place.__name__ and list(signature(function).parameters) == ARGUMENTS


@torch.inference_mode()
def _is(place: ModuleType, device: torch.device) -> bool:
    own = getattr(place, NAME)
    # Made on the host, from a generator of its own: what anyone draws afterwards is not moved.
    random = torch.Generator().manual_seed(0)
    for dtype in DTYPES:
        # As projections leave them in memory, fewer keys than queries.
        q, k = (torch.randn(2, 7, n, 16, generator=random).to(device, dtype).transpose(1, 2) for n in (4, 2))
        cos, sin = (torch.randn(2, 7, 16, generator=random).to(device, dtype) for _ in range(2))
        try:
            expected = own(q, k, cos, sin)
        except Exception:  # one that wants other arguments, or a kernel that is not to be had
            return False
        found = _both(own, {}, q, k, cos, sin)
        if not all(one.dtype == other.dtype and torch.equal(one, other) for one, other in zip(expected, found)):
            return False
    return True
