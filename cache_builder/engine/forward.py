"""The only file that runs a forward pass: a model's own modules, with a tree mask, steering and reads hooked in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import nn

from cache_builder.engine.attention import (
    FULL,
    WINDOW,
    BlockedAttention,
    block_parts,
    block_size,
    kernels_for_new_lengths,
    marker,
    plan_blocks,
    worthwhile,
)
from cache_builder.engine.hooks import Between, Joint, steered_positions, takes_more
from cache_builder.engine.lines import BATCHED, parts_of
from cache_builder.engine.norms import in_two_kernels, rms_norms
from cache_builder.engine.operators import LayerTable, to_device
from cache_builder.engine.plan import Layout
from cache_builder.engine.rope import rope_in_place, rope_modules
from cache_builder.engine.stages import Stage, node_blocks, plan_stages
from steerstats.errors import ModelError


@dataclass(slots=True)
class Output:
    """Results of one forward pass, still on the device: picked logits and log-sum-exp per scored node
    (n_scores, n_columns), and activations (n_reads, n_layers, hidden) or None. `computed` and `packed` are tokens
    with padding and without it, a token that runs through some of the blocks counted as that part of one."""

    picked: torch.Tensor
    logsumexp: torch.Tensor
    activations: torch.Tensor | None
    computed: float
    packed: float


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

    Attributes
    ----------
    lines : str
        How sequences of the plain path run: "batched", "equal" or "single"; see `lines`.

    Raises
    ------
    ModelError
        If the decoder blocks or the head cannot be found.
    """

    def __init__(self, model: nn.Module, *, attention: str = "dense") -> None:
        self.model = model.eval()
        self.attention = attention
        self.always_block = False
        self.lines = BATCHED
        self.rotaries = [m for m in model.modules() if "dynamic" in str(getattr(m, "rope_type", ""))]
        self.config = model.config.get_text_config()
        self.layers = decoder_blocks(model)
        self.head = model.get_output_embeddings()
        if self.head is None:
            raise ModelError(f"{type(model).__name__} has no language-model head; load a causal language model")
        self.hidden = int(self.config.hidden_size)
        self.device = _device_of(model.get_input_embeddings(), torch.device("cpu"))
        self.dtype = _dtype_of(self.layers, model.get_input_embeddings())
        self.places = {i: _device_of(block, self.device) for i, block in enumerate(self.layers)}
        # Elsewhere PyTorch takes as many steps as the modules do.
        cuda = self.device.type == "cuda"
        self.norms = rms_norms(model) if cuda else []
        self.ropes = rope_modules(model, self.device) if cuda else []

    @torch.inference_mode()
    def run(self, layout: Layout, tables: dict[int, LayerTable], read_layers: Sequence[int] = ()) -> Output:
        """One forward pass over a layout."""
        reads = read_layers if len(layout.read_node) else ()
        # Several scores may ask for one node (both options; shared completion tokens): unembed it once.
        wanted, inverse = np.unique(layout.score_node, return_inverse=True)
        run = self._run_trie if layout.is_trie else self._run_lines if self.lines == BATCHED else self._run_parts
        with kernels_for_new_lengths(self.device), self.fewer_kernels():
            logits, store, counts = run(layout, tables, reads, wanted)
        logits = logits.reshape(-1, logits.shape[-1])
        if len(logits) != max(len(wanted), 1):
            raise ModelError(f"{type(self.model).__name__} post-processes logits in a way that is not supported")
        logits = logits.float()
        inverse = self._tensor(inverse.reshape(layout.score_node.shape)).to(logits.device)
        target = self._tensor(layout.score_target).to(logits.device)
        picked = logits[inverse, target[:, None].expand_as(inverse)]
        activations = None
        if reads:
            activations = torch.stack([store[layer].to(self.device).float() for layer in reads], dim=1)
        return Output(picked, torch.logsumexp(logits, dim=-1)[inverse], activations, *counts)

    @contextmanager
    def fewer_kernels(self) -> Iterator[None]:
        """While active, the model's norms and rotary positions are computed in fewer passes over memory."""
        with in_two_kernels(self.norms), rope_in_place(self.ropes):
            yield

    def _run_lines(self, layout, tables, reads, wanted):
        """One right-padded sequence a line. Position ids are left to the model: some take none, and right padding
        needs none."""
        steering = steered_positions(tables, layout.code.reshape(-1), lambda layer: None)
        between = Between(
            self.layers,
            steering={layer: self._acting(layer, *at) for layer, at in steering.items()},
            reads={layer: self._tensor(layout.read_node) for layer in reads},
            joints={},
        )
        mask = self._tensor((layout.depth < layout.lengths[:, None]).astype(np.int64))
        self._forget_lengths()
        with between, self._unembedding(self._tensor(wanted)):
            output = self.model(input_ids=self._tensor(layout.token), attention_mask=mask, use_cache=False)
        return output.logits, between.store, (layout.token.size, int(layout.lengths.sum()))

    def _run_parts(self, layout, tables, reads, wanted):
        """As `_run_lines`, without padding: in batches of one length, or line by line."""
        logits, store = None, {}
        for part in parts_of(layout, wanted, self.lines):
            there = reads if len(part.read_place) else ()
            found, activations, _ = self._run_lines(part.layout, tables, there, part.wanted)
            found = found.reshape(-1, found.shape[-1])
            logits = found.new_empty(max(len(wanted), 1), found.shape[-1]) if logits is None else logits
            if len(part.wanted):
                logits[self._tensor(part.wanted_place).to(logits.device)] = found
            for layer, values in activations.items():
                if layer not in store:
                    store[layer] = values.new_empty(len(layout.read_node), values.shape[-1])
                store[layer][self._tensor(part.read_place).to(values.device)] = values
        return logits, store, (int(layout.lengths.sum()),) * 2

    def _run_trie(self, layout, tables, reads, wanted):
        """One line holding a trie, in stages: see `stages`."""
        n_blocks = len(self.layers)
        birth = np.full(1 + int(layout.under.max(initial=0)), n_blocks)
        for layer in sorted(tables, reverse=True):
            acting = np.flatnonzero(tables[layer].row[: len(birth)] >= 0)
            birth[acting] = layer
        round_to = 128 if self.attention == "flex" else 1
        stages = plan_stages(layout, birth, round_to=round_to)
        # What is wanted takes the place of the stream, and is longer here than what the model was given.
        if len(stages) > 1 and len(wanted) > len(stages[0]) and not self._takes_more:
            stages = plan_stages(replace(layout, twin=None), birth, round_to=round_to)

        def during(layer: int) -> Stage:
            return [stage for stage in stages if stage.first <= layer][-1]

        steering = steered_positions(tables, layout.code[0], lambda layer: during(layer + 1).place)
        first, final, last = stages[0], stages[-1], during(n_blocks - 1)
        # With the last layer steered, its own output is that of the stage before: the sources of what is wanted.
        needed = final.place[wanted] if final is last else final.source[final.place[wanted]]
        if n_blocks - 1 in reads:
            needed = np.concatenate([needed, last.place[layout.read_node]])
        with ExitStack() as stack:
            masks, plans = self._masks(layout, stages)
            blocked = None if plans is None else stack.enter_context(BlockedAttention(plans[0]))
            joints = {}
            for number, stage in enumerate(stages[1:], start=1):
                exchange = {id(old): new for old, new in zip(masks[0], masks[number])} if plans is None else {}
                source, root = self._tensor(stage.source), self._tensor(stage.root)
                joints[stage.first - 1] = Joint(source, root, exchange, plans[number] if plans else None)
            between = Between(
                self.layers,
                steering={layer: self._acting(layer, *at) for layer, at in steering.items()},
                reads={layer: self._tensor(during(layer).place[layout.read_node]) for layer in reads},
                joints=joints,
                wanted=self._tensor(final.place[wanted]) if joints else None,
                attention=blocked,
                needed=self._tensor(np.unique(needed)),
            )
            stack.enter_context(between)
            self._forget_lengths()
            heads = np.arange(len(wanted)) if joints else final.place[wanted]
            stack.enter_context(self._unembedding(self._tensor(heads)))
            output = self.model(
                input_ids=self._tensor(np.where(first.node >= 0, layout.token[0, first.node], 0)[None]),
                position_ids=self._tensor(first.depth[None]),
                attention_mask=dict(zip(("full_attention", "sliding_attention"), masks[0]))
                if len(masks[0]) > 1
                else masks[0][0],
                use_cache=False,
            )
        counts = tuple(count / n_blocks for count in node_blocks(stages, n_blocks))
        return output.logits, between.store, counts

    @torch.inference_mode()
    def own_logits(self, tokens: np.ndarray) -> np.ndarray:
        """The model's own logits (n_tokens, vocabulary) of one sequence, untouched by any of our hooks."""
        self._forget_lengths()
        logits = self.model(input_ids=self._tensor(tokens[None]), use_cache=False).logits
        return logits[0].float().cpu().numpy()

    @cached_property
    def _takes_more(self) -> bool:
        return takes_more(self.model, self.layers[-1], self.device)

    def _forget_lengths(self) -> None:
        """Dynamic rotary frequencies follow the longest sequence so far: what a pass gives must not depend on those
        before it."""
        for module in self.rotaries:
            for name in [name for name in vars(module) if name.endswith("max_seq_len_cached")]:
                setattr(module, name, 0)

    def _tensor(self, array: np.ndarray) -> torch.Tensor:
        return to_device(array, self.device)

    def _masks(self, layout: Layout, stages: Sequence[Stage]) -> tuple[list[list], list[dict] | None]:
        """Masks of each stage, one for each kind of layer, and the plans of attention in blocks if it is used."""
        window = getattr(self.config, "sliding_window", None)
        kinds = set(getattr(self.config, "layer_types", None) or ())
        mixed = window is not None and kinds > {"sliding_attention"}
        windows = (None, window) if mixed else (window if kinds <= {"sliding_attention"} else None,)
        if self.attention == "blocked" and (self.always_block or worthwhile(stages[-1].depth, self.device)):
            size, parts = block_size(self.device), block_parts(self.device)
            names = (FULL, WINDOW)[: len(windows)]
            plans = [
                {
                    kind: plan_blocks(stage.end, stage.depth, size, self._tensor, parts, window)
                    for kind, window in zip(names, windows)
                }
                for stage in stages
            ]
            return [[marker(kind, self.device) for kind in names]] * len(stages), plans
        build = self._dense_mask
        if self.attention == "flex":
            from cache_builder.engine.flex import block_mask as build
        ends = [(self._tensor(stage.end[None]), self._tensor(stage.depth[None])) for stage in stages]
        return [[build(end, depth, w) for w in windows] for end, depth in ends], None

    def _dense_mask(self, end: torch.Tensor, depth: torch.Tensor, window: int | None) -> torch.Tensor:
        position = torch.arange(end.shape[-1], device=end.device)
        mask = (position <= position[:, None]) & (position[:, None] < end[:, None, :])
        if window is not None:
            mask &= depth[:, :, None] - depth[:, None, :] < window
        mask = mask[:, None]
        if self.config._attn_implementation != "sdpa":
            # Everything but SDPA adds its mask to the scores, so that True would be a bias of one.
            low = torch.finfo(self.dtype).min
            return torch.where(mask, 0.0, low).to(self.dtype)
        return mask

    def _acting(self, layer: int, table: LayerTable, node: np.ndarray, row: np.ndarray):
        place = self.places[layer]
        return table, self._tensor(node).to(place), self._tensor(row).to(place)

    @contextmanager
    def _unembedding(self, wanted: torch.Tensor) -> Iterator[None]:
        """While active, the head sees only the wanted positions and accumulates in float32.

        The model's own forward still runs around it, so that scaling and soft-capping of logits stay its own.
        """
        head, original = self.head, self.head.forward

        def forward(hidden: torch.Tensor) -> torch.Tensor:
            flat = hidden.reshape(-1, hidden.shape[-1])
            chosen = flat.index_select(0, wanted.to(flat.device)) if len(wanted) else flat[:1]
            # A linear layer that computes in a way of its own (scaled eight-bit floats, normalised rows) does so here.
            plain = type(head).forward is nn.Linear.forward and head.weight.is_floating_point()
            if plain and not head.weight.is_meta:
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


def _dtype_of(blocks: nn.ModuleList, embedding: nn.Module) -> torch.dtype:
    """The type that blocks compute in. Floats of eight bits are how weights are stored; activations are as they are
    embedded."""
    found = next(p.dtype for p in blocks.parameters() if p.is_floating_point())
    return found if found.itemsize > 1 else next(embedding.parameters()).dtype


def _device_of(module: nn.Module, default: torch.device) -> torch.device:
    """Where a module computes. One that a device map offloads has no data of its own between calls, and a hook that
    knows the place."""
    for part in module.modules():
        place = getattr(getattr(part, "_hf_hook", None), "execution_device", None)
        if place is not None:
            return torch.device(place)
    parameter = next(module.parameters(), None)
    return default if parameter is None or parameter.is_meta else parameter.device
