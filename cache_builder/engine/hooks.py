"""What happens between the blocks of one forward pass: activations are read, branches part, vectors act.

The model's own forward runs around it. Its blocks get what they always get, except that after a branching the
per-token arguments (position embeddings, masks) are those of the nodes that are there from then on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from cache_builder.engine.attention import BlockedAttention
from cache_builder.engine.operators import LayerTable
from steerstats.errors import ModelError


@dataclass(slots=True)
class Joint:
    """The beginning of a stage on the device.

    Parameters
    ----------
    source, root : int64 tensors
        As in `stages.Stage`.
    masks : dict
        Mask of the first stage, by identity, to the mask that takes its place; empty where masks are markers.
    plans : dict or None
        Plans of attention in blocks.
    """

    source: torch.Tensor
    root: torch.Tensor
    masks: dict[int, Any]
    plans: dict | None
    memo: dict[int, tuple[Any, Any]] = field(default_factory=dict)


class Between:
    """Hooks on the decoder blocks, for the length of a `with`.

    Parameters
    ----------
    blocks : sequence of modules
    steering : mapping of layer to (table, node, row)
        Positions (in the stage that begins after the layer, or that it is in) and their rows of the table.
    reads : mapping of layer to positions, in the stage that the layer is in.
    joints : mapping of layer to Joint
        Stages that begin after a layer's output.
    wanted : int64 tensor or None
        After the last block only these positions go on to the head; needed where stages differ in length.
    attention : BlockedAttention or None
    needed : int64 tensor or None
        Positions of the last block's output that anything depends on: its parts that take every token by itself
        run on these alone (most of a block, for all but a few tokens of a prompt).
    """

    def __init__(
        self,
        blocks: Sequence[nn.Module],
        *,
        steering: Mapping[int, tuple[LayerTable, torch.Tensor, torch.Tensor]],
        reads: Mapping[int, torch.Tensor],
        joints: Mapping[int, Joint],
        wanted: torch.Tensor | None = None,
        attention: BlockedAttention | None = None,
        needed: torch.Tensor | None = None,
    ) -> None:
        self.blocks, self.steering, self.reads, self.joints = blocks, steering, reads, joints
        self.wanted, self.attention, self.needed = wanted, attention, needed
        self.store: dict[int, torch.Tensor] = {}
        self.first_length = 0
        self._handles: list[Any] = []

    def __enter__(self) -> Between:
        last = len(self.blocks) - 1
        joint = None
        for layer, block in enumerate(self.blocks):
            if joint is not None:
                hook = self._before(joint)
                self._handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
            elif self.joints and layer == 0:
                self._handles.append(block.register_forward_pre_hook(self._measure, with_kwargs=True))
            joint = self.joints.get(layer, joint)
            narrow = layer == last and self.wanted is not None
            if layer in self.reads or layer in self.joints or layer in self.steering or narrow:
                self._handles.append(block.register_forward_hook(self._after(layer, narrow)))
        if self.needed is not None:
            for part in _by_token(self.blocks[last]):
                self._run_where_needed(part)
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _measure(self, module: nn.Module, args: tuple, kwargs: dict) -> None:
        self.first_length = _stream(args, kwargs).shape[1]

    def _before(self, joint: Joint) -> Callable:
        def hook(module, args, kwargs):
            # The stream itself has the new nodes already; it is the first argument of every block.
            fixed = {} if args else {"hidden_states": kwargs["hidden_states"]}
            rest = {name: value for name, value in kwargs.items() if name not in fixed}
            swapped = {name: self._swap(value, joint) for name, value in rest.items()}
            return (*args[:1], *(self._swap(value, joint) for value in args[1:])), {**swapped, **fixed}

        return hook

    def _swap(self, value: Any, joint: Joint) -> Any:
        """An argument of a block as it is for the nodes of a later stage: masks are exchanged, and whatever has one
        entry a token is gathered."""
        if id(value) in joint.masks:
            return joint.masks[id(value)]
        if isinstance(value, tuple | list):
            return type(value)(self._swap(one, joint) for one in value)
        if not isinstance(value, torch.Tensor):
            return value
        axis = 0 if value.ndim == 1 else 1
        by_token = value.shape[axis : axis + 1] == (self.first_length,) and (axis == 0 or value.shape[0] == 1)
        if not by_token:
            return value
        # Layers share these arguments; holding the original keeps its id from being given to another tensor.
        if id(value) not in joint.memo:
            joint.memo[id(value)] = (value, value.index_select(axis, joint.root.to(value.device)))
        return joint.memo[id(value)][1]

    def _after(self, layer: int, narrow: bool) -> Callable:
        def hook(module, args, output):
            hidden = _first(output)
            if hidden.ndim != 3:
                raise ModelError(
                    f"{type(module).__name__} gives activations of shape {tuple(hidden.shape)}, not (batch, tokens, "
                    "hidden): this model has no single residual stream that a vector could be added to"
                )
            if layer in self.reads:
                self.store[layer] = _pick(hidden, self.reads[layer])
            if layer in self.joints:
                joint = self.joints[layer]
                hidden = _pick(hidden, joint.source)[None]
                if self.attention is not None and joint.plans is not None:
                    self.attention.plans = joint.plans
            if layer in self.steering:
                table, node, row = self.steering[layer]
                hidden = table.apply(hidden, node, row)
            if narrow:
                hidden = _pick(hidden, self.wanted)
                # Some models give the stream the shape of the input ids again, so that its length has to fit that.
                hidden = nn.functional.pad(hidden, (0, 0, 0, -len(hidden) % self.first_length))[None]
            return _with_first(output, hidden)

        return hook

    def _run_where_needed(self, part: nn.Module) -> None:
        shape = None

        def fewer(module, args):
            nonlocal shape
            shape = args[0].shape[:2]
            return _pick(args[0], self.needed)[None], *args[1:]

        def all_again(module, args, output):
            found = _first(output)
            whole = found.new_zeros(shape[0] * shape[1], found.shape[-1])
            whole.index_copy_(0, self.needed.to(whole.device), found.reshape(-1, found.shape[-1]))
            return _with_first(output, whole.view(*shape, -1))

        self._handles += [part.register_forward_pre_hook(fewer), part.register_forward_hook(all_again)]


def _by_token(block: nn.Module) -> list[nn.Module]:
    """Parts of a block that take every token by itself and that only the token's own output depends on: the
    feed-forward part, the queries, and the projection of what attention found (not keys and values)."""
    attention = getattr(block, "self_attn", None)
    parts = [getattr(block, "mlp", None), getattr(attention, "q_proj", None), getattr(attention, "o_proj", None)]
    return [part for part in parts if isinstance(part, nn.Module)]


def steered_positions(
    tables: Mapping[int, LayerTable], code: np.ndarray, place: Callable[[int], np.ndarray | None]
) -> dict[int, tuple[LayerTable, np.ndarray, np.ndarray]]:
    """Where each layer's table acts, and with which of its rows.

    Parameters
    ----------
    tables : mapping of layer to LayerTable
    code : int64 array
        Steering code of each position of the layout, flat.
    place : callable
        Positions, in the stage that follows a layer, of the layout's positions (None: the same).
    """
    steered = np.flatnonzero(code)
    found = {}
    for layer, table in tables.items():
        row = table.row[code[steered]]
        node = steered[row >= 0]
        if len(node):
            where = place(layer)
            found[layer] = (table, node if where is None else where[node], row[row >= 0])
    return found


@torch.inference_mode()
def takes_more(model: nn.Module, block: nn.Module, device: torch.device) -> bool:
    """Whether a model takes more positions behind its last block than it was given tokens.

    Some (GPT-BigCode) give the stream the shape of the input ids again.
    """
    token = torch.zeros(1, 1, dtype=torch.int64, device=device)
    handle = block.register_forward_hook(lambda block, args, out: _with_first(out, _first(out).repeat(1, 2, 1)))
    try:
        return model(input_ids=token, use_cache=False).logits.shape[:-1].numel() == 2
    except Exception:  # a model given what it may not know is a program, and fails as programs do
        return False
    finally:
        handle.remove()


def _stream(args: tuple, kwargs: dict) -> torch.Tensor:
    return args[0] if args else kwargs["hidden_states"]


def _first(output: Any) -> torch.Tensor:
    """The stream, which some blocks give along with other things, in a tuple or (GPT) a list."""
    return output[0] if isinstance(output, tuple | list) else output


def _with_first(output: Any, hidden: torch.Tensor) -> Any:
    return type(output)([hidden, *output[1:]]) if isinstance(output, tuple | list) else hidden


def _pick(hidden: torch.Tensor, node: torch.Tensor) -> torch.Tensor:
    flat = hidden.reshape(-1, hidden.shape[-1])
    return flat.index_select(0, node.to(flat.device))
