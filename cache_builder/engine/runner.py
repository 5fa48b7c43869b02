"""The engine: examples, vectors and multipliers in; answer logits and activations out.

Every distinct (prefix, steering) is computed once. A proof on the model's own inputs decides between the trie
path and the plain path.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch

from cache_builder.engine.attention import first_mask
from cache_builder.engine.flight import SMALLEST_BUDGET, Job, answer
from cache_builder.engine.forward import Forward
from cache_builder.engine.lines import STRICTNESS
from cache_builder.engine.parity import Parity, compare_paths, compare_row
from cache_builder.engine.requests import Example, Request, Scores, Steering, check_examples
from cache_builder.engine.tuning import FLEX, MASKS, measure_budgets, measure_masks
from cache_builder.packing import Row
from steerstats.errors import InputError, ModelError

DEFAULT_BUDGET = {"cuda": 4096, "cpu": 1024}


class Engine:
    """A causal language model that scores steered examples.

    Parameters
    ----------
    model : transformers.PreTrainedModel
        Left as it is; hooks are attached for the length of a forward pass.
    budget : int, optional
        Wanted tokens per row; `tune` measures the best. Default: 4096 on CUDA, 1024 elsewhere.
    path : str
        "auto" (the trie path if `prove` finds it exact, which happens at the first run if not before), "trie"
        or "plain".
    flex : bool
        CUDA FlexAttention for trie rows; see `Forward`.
    join : bool
        Compute steered branches only from the layer on that they differ from; see `stages`. The proof turns it off
        for a model that does not take it.

    Attributes
    ----------
    budget : int
        The budget in use: out-of-memory halves it. Record it, and pass it to a resumed build.
    ceiling : int or None
        Tokens per row that memory allowed, once a row did not fit.
    path : str
        "trie" or "plain" after a proof.
    parity : Parity or None
        The record of the last proof.
    tokens : ndarray (2,)
        Tokens that all calls of `run` so far have computed, with padding and without it.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        budget: int | None = None,
        path: str = "auto",
        flex: bool = False,
        join: bool = True,
    ) -> None:
        if path not in ("auto", "trie", "plain"):
            raise InputError(f"path {path!r} is not one of auto, trie, plain")
        self.forward = Forward(model, attention="flex" if flex else first_mask(model))
        self._implementation = "sdpa" if flex else self.forward.config._attn_implementation
        if flex and self.forward.device.type != "cuda":
            raise ModelError(
                f"flex_attention is compiled for CUDA, and the model is on {self.forward.device}; "
                'load it with attention = "sdpa"'
            )
        self.budget = budget or DEFAULT_BUDGET.get(self.forward.device.type, 1024)
        if self.budget < SMALLEST_BUDGET:
            raise InputError(f"token budget {budget} is below the smallest that is useful, {SMALLEST_BUDGET}")
        self.ceiling: int | None = None
        self.path = path
        self.join = join
        self.parity: Parity | None = None
        self.tokens = np.zeros(2)
        self._proved_rows: tuple | None = None

    @property
    def n_layers(self) -> int:
        """Number of decoder blocks."""
        return len(self.forward.layers)

    @property
    def hidden(self) -> int:
        """Width of the residual stream."""
        return self.forward.hidden

    def run(
        self,
        examples: Sequence[Example],
        steering: Steering | None = None,
        *,
        completions: bool = False,
        read_layers: Sequence[int] = (),
        first: bool = True,
    ) -> Scores:
        """Score every example under every steering code, unsteered included, and read activations.

        Parameters
        ----------
        examples : sequence of Example
            All with the same number of options.
        steering : Steering, optional
            Without it, only the unsteered model is run.
        completions : bool
            Also sum log-probabilities and raw logits over the whole completions.
        read_layers : sequence of int
            Layers (0-based decoder blocks) whose outputs are read at each example's `reads`, unsteered.
        first : bool
            Score the first differing token. False for a run that only reads.

        Returns
        -------
        Scores

        Raises
        ------
        InputError
            If examples and steering do not fit each other or the model.
        ModelError
            If a scope cannot act, or not even one sequence fits in memory.
        """
        request = Request(examples, steering, completions=completions, read_layers=tuple(read_layers), first=first)
        return next(self.stream([request]))

    def stream(self, requests: Iterable[Request]) -> Iterator[Scores]:
        """Answer requests in their order, as `run` would, without a pause of the device between them.

        Parameters
        ----------
        requests : iterable of Request
            Asked for one by one: the next when all rows of the one before are on their way, so that it must not wait
            for the scores of that one.

        Yields
        ------
        Scores
        """

        def jobs() -> Iterator[Job]:
            for request in requests:
                self._check(request)
                if self.path == "auto":
                    self.prove(request.examples, request.steering, completions=request.completions)
                yield Job(self, request)

        for scores in answer(self, jobs()):
            # A new array: who noted the old one, to subtract it, keeps it.
            self.tokens = self.tokens + np.array([scores.computed, scores.packed])
            yield scores

    def prove(
        self,
        examples: Sequence[Example],
        steering: Steering | None = None,
        n: int = 4,
        *,
        completions: bool = False,
    ) -> Parity:
        """Compare the trie path with plain one-sequence passes, and choose the path.

        A few examples are compared, and then a row that is filled to the token budget as a run will fill it.

        Parameters
        ----------
        examples : sequence of Example
            Real inputs, neighbours as in a run; the longest, and the one with the longest completions, are always among
            those compared.
        steering : Steering, optional
            Vectors of the build; the largest multipliers of the first and the last vector are compared.
        n : int
            Number of examples compared at first, the one with the longest completions not counted.
        completions : bool
            Compare the sums over whole completions as well.

        Returns
        -------
        Parity
            Also kept as `parity`. A ModelError of the trie path counts as a failed proof, with its text.
        """
        self._check(Request(examples, steering, completions=completions, read_layers=(0,), first=False))
        earlier = self.parity
        ways = [(self.mask, self.join), (self.mask, False), ("dense", False)]
        for mask, join in dict.fromkeys(ways):
            self.use_mask(mask)
            self.join = join
            self.parity = compare_paths(self, examples, steering, n, completions=completions)
            if self.parity.passed:
                break
        if earlier is not None and STRICTNESS.index(earlier.lines) > STRICTNESS.index(self.parity.lines):
            # These examples may be of one length, in which padding cannot err.
            self.forward.lines = earlier.lines
            self.parity = replace(self.parity, lines=earlier.lines)
        self._settle(earlier)
        return self.parity

    def prove_row(
        self, examples: Sequence[Example], steering: Steering | None = None, *, completions: bool = False
    ) -> None:
        """Prove a row again where rows are no longer those that the last proof was held on (budget, mask); see `prove`.

        Nothing happens without an earlier proof, or off the trie path.
        """
        if self.parity is None or self.path != "trie" or self._proved_rows == self._rows():
            return
        proved = compare_row(self, examples, steering, self.parity, completions=completions)
        if not proved.passed:  # perhaps another way of running the trie holds
            self.prove(examples, steering, completions=completions)
            return
        self.parity = proved
        self._settle()

    def _settle(self, earlier: Parity | None = None) -> None:
        """Take over what the proof found; a path that an earlier one has settled stays, with its reason."""
        if self.path == "auto" or not self.parity.passed:
            self.path = self.parity.path
        elif self.path == "plain":
            reason = "it was asked for"
            if earlier is not None:
                reason = earlier.reason if earlier.passed else f"an earlier proof failed, {earlier.reason}"
            self.parity = replace(self.parity, path="plain", reason=reason or "it was asked for")
        self.note_rows()

    def note_rows(self) -> None:
        """The last proof was held on rows as they are now."""
        self._proved_rows = self._rows()

    def _rows(self) -> tuple[int, int | None, str, bool]:
        """What decides how long rows are and how they run."""
        return self.budget, self.ceiling, self.mask, self.join

    def tune(
        self,
        examples: Sequence[Example],
        steering: Steering | None = None,
        budgets: Sequence[int] = (),
        n: int | None = None,
        *,
        proved: Sequence[Example] = (),
        completions: bool = False,
    ) -> dict[int, float]:
        """Measure examples per second for several budgets on a sample, and keep the best.

        After a proof that chose the trie path, a row of the best budget is proved; should that fail, the budgets of
        the plain path are measured.

        Parameters
        ----------
        examples, steering
            Of the build.
        budgets : sequence of int, optional
        n : int, optional
            Size of the sample. Default: enough for several rows.
        proved : sequence of Example
            What the proof is held on; `examples` by default.
        completions : bool
            Time runs that score whole completions, as the build will.

        Returns
        -------
        dict
            Examples per second for each budget that was measured: those that fit in memory as far as is known by then.
        """
        found = measure_budgets(self, examples, steering, budgets, completions, n)
        if self.path == "trie":
            self.prove_row(proved or examples, steering, completions=completions)
            if self.path != "trie":
                found = measure_budgets(self, examples, steering, budgets, completions, n)
        return found

    @property
    def mask(self) -> str:
        """How trie rows are masked: "blocked", "dense" or "flex"; see `Forward`."""
        return self.forward.attention

    def use_mask(self, mask: str) -> None:
        """Mask trie rows in this way from now on; the model's attention follows where it has to.

        Raises
        ------
        InputError
            If there is no such way, or not for this model.
        """
        if mask not in MASKS:
            raise InputError(f"mask {mask!r} is not one of {', '.join(MASKS)}")
        if mask == "blocked" and self._implementation != "sdpa":
            raise InputError(
                f"attention in blocks is for models that call SDPA; this one is loaded with {self._implementation!r}"
            )
        wanted = FLEX if mask == "flex" else self._implementation
        if self.forward.config._attn_implementation != wanted:
            self.forward.model.set_attn_implementation(wanted)
        self.forward.attention = mask

    def choose_mask(
        self,
        examples: Sequence[Example],
        steering: Steering | None = None,
        masks: Sequence[str] | None = None,
        *,
        proved: Sequence[Example] = (),
        completions: bool = False,
        n: int | None = None,
    ) -> dict[str, float | str]:
        """Measure the ways of masking trie rows on a sample, and keep the fastest of those that pass the proof.

        Parameters
        ----------
        examples, steering
            As in `tune`, after which it belongs.
        masks : sequence of str, optional
            Default: all of them where the model calls SDPA on one CUDA device; elsewhere nothing is to choose.
        proved : sequence of Example
            What the proof is held on; `examples` by default.
        completions : bool
            As in `prove` and `tune`.
        n : int, optional
            Size of the sample. Default: enough for several rows.

        Returns
        -------
        dict
            For each mask: examples per second, or why it is out of the question.
        """
        if masks is None:
            free = self.mask == "blocked" and self.forward.device.type == "cuda"
            masks = MASKS if free and self.path == "trie" else ()
        return measure_masks(self, examples, steering, masks, proved or examples, completions, n)

    def _check(self, request: Request) -> None:
        if not (request.first or request.completions or request.read_layers):
            raise InputError("nothing is asked for: first = False, without completions and without read_layers")
        check_examples(request.examples, first_token=request.first)
        steering = request.steering
        layers = [*request.read_layers, *(np.unique(steering.layers).tolist() if steering else [])]
        for layer in layers:
            if not 0 <= layer < self.n_layers:
                raise InputError(f"layer {layer} is not in this model; it has 0-{self.n_layers - 1}")
        if steering is None:
            return
        if steering.directions.shape[-1] != self.hidden:
            raise InputError(
                f"steering vectors have {steering.directions.shape[-1]} dimensions; the model has {self.hidden}"
            )
        for example in request.examples:
            steering.check_acts(example, self.n_layers, whole=request.completions)

    def _run(
        self,
        request: Request,
        *,
        path: str | None = None,
        budget: int | None = None,
        codes: np.ndarray | None = None,
        rows: Sequence[Row] | None = None,
    ) -> Scores:
        """`run` without checks, on a given path, budget and subset of codes, or in given rows (for the proof)."""
        return next(answer(self, [Job(self, request, path=path, budget=budget, codes=codes, rows=rows)]))
