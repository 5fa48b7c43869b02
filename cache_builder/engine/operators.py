"""How a steering vector changes an activation, and the per-layer tables that hold multiplier and direction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from cache_builder.engine.requests import Steering


@dataclass(frozen=True, slots=True)
class LayerTable:
    """Steering of one layer: which codes act there, with which direction and multiplier.

    Parameters
    ----------
    row : int64 array (n_codes,)
        Row of each steering code in the tensors, -1 where the code does not act at this layer.
    direction, unit : float32 tensors (n_rows, hidden)
        The direction as given, and at norm one.
    multiplier : float32 tensor (n_rows, 1)
    operator : str
    """

    row: np.ndarray
    direction: torch.Tensor
    unit: torch.Tensor
    multiplier: torch.Tensor
    operator: str

    def apply(self, hidden: torch.Tensor, node: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
        """Steer the given flat positions of `hidden` (..., hidden), computing in float32."""
        shape = hidden.shape
        flat = hidden.reshape(-1, shape[-1]).clone()
        before = flat.index_select(0, node).float()
        direction = self.direction.index_select(0, row)
        multiplier = self.multiplier.index_select(0, row)
        after = operate(self.operator, before, direction, self.unit, row, multiplier)
        flat.index_copy_(0, node, after.to(flat.dtype))
        return flat.reshape(shape)


def operate(
    operator: str,
    hidden: torch.Tensor,
    direction: torch.Tensor,
    unit: torch.Tensor,
    row: torch.Tensor,
    multiplier: torch.Tensor,
) -> torch.Tensor:
    """One operator on rows of activations; see `Steering` for the formulas.

    Parameters
    ----------
    hidden, direction : tensors (n, hidden)
        Activations and their directions.
    unit : tensor (n_rows, hidden)
        Unit directions, of which row `row[i]` belongs to activation i.
    multiplier : tensor (n, 1)
    """
    if operator == "add":
        return torch.addcmul(hidden, direction, multiplier)
    if operator == "add_keep_norm":
        moved = torch.addcmul(hidden, direction, multiplier)
        norm = moved.norm(dim=-1, keepdim=True).clamp_min(torch.finfo(moved.dtype).tiny)
        return moved * (hidden.norm(dim=-1, keepdim=True) / norm)
    along = unit.index_select(0, row)
    part = (hidden * along).sum(-1, keepdim=True) * along
    if operator == "ablate":
        return hidden - multiplier * part
    return torch.addcmul(hidden - part, direction, multiplier)


def layer_tables(steering: Steering, place: dict[int, torch.device]) -> dict[int, LayerTable]:
    """One table for each layer that any vector steers, on the device where that layer's output lives."""
    codes = steering.codes
    tables = {}
    for layer in sorted(set(steering.layers.reshape(-1).tolist())):
        vector, slot = np.nonzero(steering.layers == layer)
        acting = codes[vector] != 0
        which, column = np.nonzero(acting)
        row = np.full(steering.n_codes, -1, dtype=np.int64)
        row[codes[vector][acting]] = np.arange(acting.sum())
        direction = steering.directions[vector, slot][which]
        norm = np.linalg.norm(direction, axis=-1, keepdims=True)
        tensors = (
            direction,
            np.divide(direction, norm, out=np.zeros_like(direction), where=norm > 0),
            steering.multipliers[column][:, None].astype(np.float32),
        )
        device = place[layer]
        on_device = [to_device(array, device) for array in tensors]
        tables[layer] = LayerTable(row, *on_device, operator=steering.operator)
    return tables


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    """An array on a device; on CUDA through pinned memory, so that nobody waits for the copy."""
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
