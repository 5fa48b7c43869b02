"""The way back: results of each row are copied to the host and put in their places in `Scores`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cache_builder.engine.forward import Output
from cache_builder.engine.plan import COMPLETION, FIRST, Layout, Wanted
from cache_builder.engine.requests import Example, Scores


class Transfer:
    """Copies of a forward pass's results on their way to the host; on CUDA without stopping the device."""

    def __init__(self, output: Output) -> None:
        self.computed, self.packed = output.computed, output.packed
        tensors = [output.picked, output.logsumexp, output.activations]
        places = {tensor.device for tensor in tensors if tensor is not None}
        devices = [place for place in places if place.type == "cuda"]
        self.tensors = [None if t is None else _to_pinned(t) if t.device in devices else t.cpu() for t in tensors]
        # An event belongs to the stream of one device, which need not be the current one (device = "cuda:1"), nor the
        # only one (a model over several).
        self.events = [torch.cuda.Event() for _ in devices]
        for event, device in zip(self.events, devices):
            event.record(torch.cuda.current_stream(device))

    def arrays(self) -> list[np.ndarray | None]:
        for event in self.events:
            event.synchronize()
        return [None if t is None else t.numpy() for t in self.tensors]


class Answer:
    """The arrays of `Scores`, filled row by row."""

    def __init__(
        self, examples: Sequence[Example], n_codes: int, wanted: Wanted, layers: tuple[int, ...], hidden: int
    ) -> None:
        shape = (len(examples), n_codes, len(examples[0].options))
        self.layers = layers
        self.logits = np.full(shape, np.nan, dtype=np.float32)
        self.logsumexp = np.full(shape[:2], np.nan, dtype=np.float32)
        self.sums = np.zeros((2, *shape)) if wanted.completions else None
        self.activations = None
        if wanted.reads:
            self.n_reads = max(len(example.reads) for example in examples)
            self.activations = np.full((len(examples), self.n_reads, len(layers), hidden), np.nan, dtype=np.float32)
        self.computed = self.packed = 0.0

    def take(self, layout: Layout, transfer: Transfer) -> None:
        picked, total, activations = transfer.arrays()
        self.computed += transfer.computed
        self.packed += transfer.packed
        example, option = layout.score_example[:, None], layout.score_option[:, None]
        columns = layout.columns[None]
        first = layout.score_kind == FIRST
        self.logits[example[first], columns, option[first]] = picked[first]
        self.logsumexp[example[first], columns] = total[first]
        if self.sums is not None:
            rest = layout.score_kind == COMPLETION
            where = (example[rest], columns, option[rest])
            np.add.at(self.sums[0], where, picked[rest])
            np.add.at(self.sums[1], where, picked[rest].astype(np.float64) - total[rest])
        if activations is not None:
            slots, which = np.unique(layout.read_slot, axis=0, return_inverse=True)
            mean = np.zeros((len(slots), *activations.shape[1:]), dtype=np.float32)
            np.add.at(mean, which.reshape(-1), activations * layout.read_weight[:, None, None])
            self.activations[slots[:, 0], slots[:, 1]] = mean

    def scores(self) -> Scores:
        sums = [None, None] if self.sums is None else self.sums.astype(np.float32)
        return Scores(
            logits=self.logits,
            logsumexp=self.logsumexp,
            completion_logit=sums[0],
            completion_logprob=sums[1],
            activations=self.activations,
            layers=self.layers,
            computed=self.computed,
            packed=self.packed,
        )


def _to_pinned(tensor: torch.Tensor) -> torch.Tensor:
    host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return host.copy_(tensor, non_blocking=True)
