"""Attention over a trie in blocks: each block of queries sees only the keys that any of them may see.

In depth-first order the keys of queries a..b-1 are the ancestors of node a and the nodes a..b-1 themselves. So the
keys of every block are gathered, and a few batched calls compute all blocks, each those of about the same depth: the
cost of a query is its depth plus the block, whatever the length of the row, and no mask of row x row is ever made.
The model calls the attention that it always calls; the mask it passes on is a marker, and only calls with that marker
are taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

BLOCK = {"cuda": 128}
# In one part, a fifth to two fifths of the work would be padding up to the deepest block (prompts of four kinds). On a
# GPU that work is a twentieth of a pass, and four times as many kernels cost more (3% of a 7B grid on an H200).
PARTS = {"cuda": 1}
FULL, WINDOW = 1, 2


@dataclass(frozen=True, slots=True)
class Blocks:
    """Blocks of queries that see about equally many keys: one call of the attention.

    Parameters
    ----------
    block : int64 tensor (n_blocks,)
        Which blocks of the row these are.
    query : int64 tensor (n_blocks * size,)
        Their positions; past the end of the row its last.
    key : int64 tensor (n_blocks * longest,)
        Gathered key positions, padded with 0.
    mask : bool tensor (n_blocks, 1, size, longest)
    """

    block: torch.Tensor
    query: torch.Tensor
    key: torch.Tensor
    mask: torch.Tensor
    _bias: dict[tuple, torch.Tensor] = field(default_factory=dict)

    def bias(self, like: torch.Tensor) -> torch.Tensor:
        """The mask as what is added to scores: what the attention would make of it anew in every layer."""
        if (kind := (like.device, like.dtype)) not in self._bias:
            # log 1 = 0 and log 0 = -inf, exactly.
            self._bias[kind] = self.mask.to(like.device).to(like.dtype).log()
        return self._bias[kind]


@dataclass(frozen=True, slots=True)
class BlockPlan:
    """Keys and masks of every block of queries of a row.

    Parameters
    ----------
    count : int
        Blocks of the row.
    parts : tuple of Blocks
    """

    count: int
    parts: tuple[Blocks, ...]

    def attend(self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float | None) -> torch.Tensor:
        """What masked attention over the whole row gives; tensors (1, n_heads, row, head_size).

        Tokens are gathered and scattered with all their heads, as projections leave them in memory.
        """
        length, device = query.shape[2], key.device
        found = None
        for part in self.parts:
            n = len(part.block)
            drawn = [
                tensor[0].transpose(0, 1).index_select(0, place.to(device)).unflatten(0, (n, -1)).transpose(1, 2)
                for tensor, place in ((query, part.query), (key, part.key), (value, part.key))
            ]
            out = scaled_dot_product_attention(*drawn, attn_mask=part.bias(query), scale=scale).transpose(1, 2)
            if n == self.count:  # one part holds all blocks, in their order
                found = out
                break
            if found is None:
                found = out.new_empty((self.count, *out.shape[1:]))
            found.index_copy_(0, part.block.to(device), out)
        return found.flatten(0, 1)[None, :length].transpose(1, 2)


class BlockedAttention(TorchFunctionMode):
    """While active, attention calls that carry a marker mask are computed by the plan of that marker."""

    def __init__(self, plans: dict[int, BlockPlan]) -> None:
        super().__init__()
        self.plans = plans

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is scaled_dot_product_attention:
            mask = kwargs.get("attn_mask", args[3] if len(args) > 3 else None)
            if mask is not None and mask.shape[:-1] == (1, 1, 1) and mask.shape[-1] in self.plans:
                query, key, value = (kwargs.get(name, args[i] if i < len(args) else None) for i, name in _ARGUMENTS)
                if kwargs.get("enable_gqa") and query.shape[1] != key.shape[1]:
                    repeats = query.shape[1] // key.shape[1]
                    key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
                return self.plans[mask.shape[-1]].attend(query, key, value, kwargs.get("scale"))
        return func(*args, **kwargs)


def kernels_for_new_lengths(device: torch.device) -> AbstractContextManager:
    """Attention without cuDNN, which builds a graph for every new pair of extents: no two rows have the same, and a
    7B grid with dense masks took three times as long."""
    if device.type != "cuda":
        return nullcontext()
    return sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH])


_ARGUMENTS = ((0, "query"), (1, "key"), (2, "value"))


def first_mask(model: torch.nn.Module) -> str:
    """Blocked where the model calls SDPA; a model over several devices keeps its masks where they are."""
    places = {parameter.device for parameter in model.parameters()}
    attention = getattr(model.config.get_text_config(), "_attn_implementation", None)
    return "blocked" if attention == "sdpa" and len(places) == 1 else "dense"


def worthwhile(depth: np.ndarray, device: torch.device) -> bool:
    """Whether blocks save at least half of the query-key pairs of a row of nodes at these depths."""
    return 2 * (int(depth.max()) + block_size(device)) <= len(depth)


def block_size(device: torch.device) -> int:
    """Queries per block: large enough to keep matrix units busy, small against the depth of a prompt."""
    return BLOCK.get(device.type, 64)


def block_parts(device: torch.device) -> int:
    """Calls of the attention among which the blocks of a row are divided."""
    return PARTS.get(device.type, 4)


def plan_blocks(
    end: np.ndarray,
    depth: np.ndarray,
    size: int,
    put: Callable[[np.ndarray], torch.Tensor],
    parts: int,
    window: int | None = None,
) -> BlockPlan:
    """The plan of one trie row.

    Parameters
    ----------
    end, depth : int64 array (n_nodes,)
        As in `Layout`, of a single line.
    size : int
        Queries per block, see `block_size`.
    put : callable
        Brings an array to the device, without stopping it.
    parts : int
        Calls of the attention among which the blocks are divided by depth, see `block_parts`.
    window : int, optional
        Sliding window of the layers it is for.
    """
    length = len(end)
    starts = np.arange(0, length, size)
    own = np.arange(length)
    # Proper ancestors of a block's first node: earlier nodes whose subtree reaches past it.
    keys = [np.concatenate([np.flatnonzero(end[:a] > a), own[a : a + size]]) for a in starts]
    order = np.argsort([len(k) for k in keys], kind="stable") if parts > 1 else np.arange(len(keys))
    found = []
    for blocks in np.array_split(order, min(parts, len(keys))):
        # CUDA kernels want the mask's rows aligned.
        longest = -(-max(len(keys[block]) for block in blocks) // 16) * 16
        key = np.zeros((len(blocks), longest), dtype=np.int64)
        real = np.zeros(key.shape, dtype=bool)
        for line, block in enumerate(blocks):
            n = len(keys[block])
            key[line, :n], real[line, :n] = keys[block], True
        query = starts[blocks, None] + np.arange(size)
        mask = real[:, None] & (key[:, None] <= query[..., None]) & (query[..., None] < end[key][:, None])
        inside = np.minimum(query, length - 1)
        if window is not None:
            mask &= depth[inside][..., None] - depth[key][:, None] < window
        # Queries past the row are thrown away; they only have to see something.
        mask[query >= length, 0] = True
        found.append(Blocks(put(blocks), put(inside.reshape(-1)), put(key.reshape(-1)), put(mask[:, None])))
    return BlockPlan(len(keys), tuple(found))


def marker(kind: int, device: torch.device) -> torch.Tensor:
    """The mask that a model passes on to its attention; its last extent tells which plan is meant."""
    return torch.ones(1, 1, 1, kind, dtype=torch.bool, device=device)
