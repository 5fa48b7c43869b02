"""The interval mask for CUDA FlexAttention: an alternative to blocked attention, taken where it is named or faster.

Rows are padded to a multiple of 128 (see `stages`), so that few lengths occur and little is recompiled.
"""

from __future__ import annotations

import torch


def block_mask(end: torch.Tensor, depth: torch.Tensor, window: int | None):
    """FlexAttention's block mask of trie rows; tensors (n_rows, length) as in `Layout`."""
    from torch.nn.attention.flex_attention import create_block_mask

    def interval(batch, head, query, key):
        seen = (key <= query) & (query < end[batch, key])
        return seen if window is None else seen & (depth[batch, query] - depth[batch, key] < window)

    lines, length = end.shape
    return create_block_mask(interval, B=lines, H=None, Q_LEN=length, KV_LEN=length, device=end.device)
