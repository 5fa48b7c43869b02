"""A model over a batch of tries: steered answer logits and activations, each distinct prefix computed once.

`Engine(model).run(examples, steering)` is the whole interface, and `stream` is the same for many requests without a
pause between them. `Example`, `Steering` and `Scores` are what goes in and comes out, `Parity` is the proof that the
fast path holds for this model.
"""

from cache_builder.engine.parity import Parity
from cache_builder.engine.plan import count_nodes
from cache_builder.engine.requests import (
    OPERATORS,
    READS,
    SCOPES,
    SCORES,
    Example,
    Request,
    Scores,
    Steering,
    read_spans,
)
from cache_builder.engine.runner import Engine

__all__ = [
    "OPERATORS",
    "READS",
    "SCOPES",
    "SCORES",
    "Engine",
    "Example",
    "Parity",
    "Request",
    "Scores",
    "Steering",
    "count_nodes",
    "read_spans",
]
