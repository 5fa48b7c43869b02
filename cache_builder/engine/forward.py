"""The only file that runs a forward pass: a model's own modules, with a tree mask, steering and reads hooked in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from cache_builder.engine.attention import FULL, WINDOW, BlockedAttention, block_size, marker, plan_blocks, worthwhile
from cache_builder.engine.operators import LayerTable
from cache_builder.engine.plan import Layout
from steerstats.errors import ModelError


@dataclass(slots=True)
class Output:
    """Results of one forward pass, still on the device: picked logits and log-sum-exp per scored node
    (n_scores, n_columns), and activations (n_reads, n_layers, hidden) or None."""

    picked: torch.Tensor
    logsumexp: torch.Tensor
    activations: torch.Tensor | None


class Forward:
    """A causal language model, prepared for tries.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Any decoder with a language-model head; it is put into evaluation mode, never changed otherwise.
    attention : str
        How a trie row is masked: "dense" (boolean row x row mask), "blocked" (where the model uses SDPA; dense for
        rows in which it saves little; see `attention`), or "flex" (FlexAttention with the interval as block mask;
        the model has to be loaded with `attn_implementation="flex_attention"`).

    Raises
    ------
    ModelError
        If the decoder blocks or the head cannot be found.
    """

    def __init__(self, model: nn.Module, *, attention: str = "dense") -> None:
        self.model = model.eval()
        self.attention = attention
        self.always_block = False
        self.config = model.config.get_text_config()
        self.layers = decoder_blocks(model)
        self.head = model.get_output_embeddings()
        if self.head is None:
            raise ModelError(f"{type(model).__name__} has no language-model head; load a causal language model")
        self.hidden = int(self.config.hidden_size)
        self.device = model.get_input_embeddings().weight.device
        self.dtype = next(p.dtype for p in self.layers.parameters() if p.is_floating_point())
        self.places = {i: _device_of(block, self.device) for i, block in enumerate(self.layers)}

    @torch.inference_mode()
    def run(self, layout: Layout, tables: dict[int, LayerTable], read_layers: Sequence[int] = ()) -> Output:
        """One forward pass over a layout."""
        # The plain path leaves position ids to the model: some take none, and right padding needs none.
        arguments = {"position_ids": self._tensor(layout.depth)} if layout.is_trie else {}
        reads = read_layers if len(layout.read_node) else ()
        with ExitStack() as stack:
            store = stack.enter_context(self._reading(reads, layout.read_node))
            stack.enter_context(self._steering(tables, layout.code))
            # Several scores may ask for one node (both options; shared completion tokens): unembed it once.
            wanted, inverse = np.unique(layout.score_node, return_inverse=True)
            stack.enter_context(self._unembedding(self._tensor(wanted)))
            output = self.model(
                input_ids=self._tensor(layout.token),
                attention_mask=self._mask(layout, stack),
                use_cache=False,
                **arguments,
            )
        logits = output.logits.reshape(-1, output.logits.shape[-1])
        if len(logits) != max(len(wanted), 1):
            raise ModelError(f"{type(self.model).__name__} post-processes logits in a way that was not foreseen")
        logits = logits.float()
        inverse = self._tensor(inverse.reshape(layout.score_node.shape)).to(logits.device)
        target = self._tensor(layout.score_target).to(logits.device)
        picked = logits[inverse, target[:, None].expand_as(inverse)]
        activations = None
        if reads:
            activations = torch.stack([store[layer].to(self.device).float() for layer in reads], dim=1)
        return Output(picked, torch.logsumexp(logits, dim=-1)[inverse], activations)

    @torch.inference_mode()
    def own_logits(self, tokens: np.ndarray) -> np.ndarray:
        """The model's own logits (n_tokens, vocabulary) of one sequence, untouched by any of our hooks."""
        logits = self.model(input_ids=self._tensor(tokens[None]), use_cache=False).logits
        return logits[0].float().cpu().numpy()

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _mask(self, layout: Layout, stack: ExitStack) -> torch.Tensor | dict[str, torch.Tensor]:
        """The mask argument of the model: one tensor, or one for each kind of layer."""
        if not layout.is_trie:
            return self._tensor((layout.depth < layout.lengths[:, None]).astype(np.int64))
        window = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or ())
        mixed = window is not None and kinds > {"sliding_attention"}
        windows = (None, window) if mixed else (window if kinds <= {"sliding_attention"} else None,)
        if self.attention == "blocked" and (self.always_block or worthwhile(layout, self.device)):
            size = block_size(self.device)
            plans = {kind: plan_blocks(layout, size, self._tensor, w) for kind, w in zip((FULL, WINDOW), windows)}
            stack.enter_context(BlockedAttention(plans))
            masks = [marker(kind, self.device) for kind in plans]
        else:
            build = self._dense_mask
            if self.attention == "flex":
                from cache_builder.engine.flex import block_mask as build
            end, depth = self._tensor(layout.end), self._tensor(layout.depth)
            masks = [build(end, depth, w) for w in windows]
        return dict(zip(("full_attention", "sliding_attention"), masks)) if mixed else masks[0]

    def _dense_mask(self, end: torch.Tensor, depth: torch.Tensor, window: int | None) -> torch.Tensor:
        position = torch.arange(end.shape[-1], device=end.device)
        mask = (position <= position[:, None]) & (position[:, None] < end[:, None, :])
        if window is not None:
            mask &= depth[:, :, None] - depth[:, None, :] < window
        mask = mask[:, None]
        if self.config._attn_implementation == "eager":
            # Eager attention adds its mask to the scores, so that True would be a bias of one.
            low = torch.finfo(self.dtype).min
            return torch.where(mask, 0.0, low).to(self.dtype)
        return mask

    @contextmanager
    def _steering(self, tables: dict[int, LayerTable], code: np.ndarray) -> Iterator[None]:
        handles = []
        flat = code.reshape(-1)
        steered = np.flatnonzero(flat)
        for layer, table in tables.items():
            row = table.row[flat[steered]]
            node = steered[row >= 0]
            if not len(node):
                continue
            place = self.places[layer]
            hook = _steering_hook(table, self._tensor(node).to(place), self._tensor(row[row >= 0]).to(place))
            handles.append(self.layers[layer].register_forward_hook(hook))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _reading(self, layers: Sequence[int], node: np.ndarray) -> Iterator[dict[int, torch.Tensor]]:
        store: dict[int, torch.Tensor] = {}
        index = self._tensor(node) if layers else None

        def reader(layer: int):
            def hook(module, args, output):
                hidden = output[0] if isinstance(output, tuple) else output
                flat = hidden.reshape(-1, hidden.shape[-1])
                store[layer] = flat.index_select(0, index.to(flat.device))

            return hook

        handles = [self.layers[layer].register_forward_hook(reader(layer)) for layer in layers]
        try:
            yield store
        finally:
            for handle in handles:
                handle.remove()

    @contextmanager
    def _unembedding(self, wanted: torch.Tensor) -> Iterator[None]:
        """While active, the head sees only the wanted positions and accumulates in float32.

        The model's own forward still runs around it, so that scaling and soft-capping of logits stay its own.
        """
        head, original = self.head, self.head.forward

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            chosen = hidden.reshape(-1, hidden.shape[-1]).index_select(0, wanted.to(hidden.device))
            if not len(wanted):
                chosen = hidden.reshape(-1, hidden.shape[-1])[:1]
            if isinstance(head, nn.Linear) and head.weight.is_floating_point() and not head.weight.is_meta:
                return linear_float32(chosen, head.weight, head.bias)[None]
            return original(chosen[None]).float()

        had = "forward" in vars(head)
        head.forward = forward
        try:
            yield
        finally:
            if had:
                head.forward = original
            else:
                del head.forward


def decoder_blocks(model: nn.Module) -> nn.ModuleList:
    """The list of decoder blocks of any transformers decoder.

    Raises
    ------
    ModelError
        If no module list has as many members as the configuration has layers.
    """
    config = model.config.get_text_config()
    wanted = config.num_hidden_layers
    decoder = model.get_decoder() if hasattr(model, "get_decoder") else None
    for root in (decoder, model.base_model, model):
        if root is None:
            continue
        found = [
            (name.count("."), module)
            for name, module in root.named_modules()
            if isinstance(module, nn.ModuleList) and len(module) == wanted and "vision" not in name
        ]
        if found:
            return min(found, key=lambda pair: pair[0])[1]
    raise ModelError(f"{type(model).__name__} has no list of {wanted} decoder blocks that could be steered")


def linear_float32(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
    """`hidden @ weight.T + bias` with float32 accumulation and float32 result.

    Products of two bfloat16 numbers are exact in float32, so a tensor-core product with float32 output equals the
    product of upcast operands up to the order of summation.
    """
    hidden = hidden.to(weight.device)
    if weight.device.type == "cuda" and weight.dtype in (torch.bfloat16, torch.float16):
        logits = torch.mm(hidden.to(weight.dtype), weight.t(), out_dtype=torch.float32)
    else:
        logits = nn.functional.linear(hidden.float(), weight.float())
    return logits if bias is None else logits + bias.float()


def _steering_hook(table: LayerTable, node: torch.Tensor, row: torch.Tensor):
    def hook(module, args, output):
        if isinstance(output, tuple):
            return (table.apply(output[0], node, row), *output[1:])
        return table.apply(output, node, row)

    return hook


def _device_of(block: nn.Module, default: torch.device) -> torch.device:
    parameter = next(block.parameters(), None)
    return default if parameter is None or parameter.is_meta else parameter.device
