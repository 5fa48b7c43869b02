"""Steering vectors: fitted from training activations with their controls, drawn, or brought from elsewhere."""

from __future__ import annotations

from cache_builder.vectors.draws import named_rng
from cache_builder.vectors.fit import VectorSet, difference, fit_vectors, slot_norms, to_norm

__all__ = ["VectorSet", "difference", "fit_vectors", "named_rng", "slot_norms", "to_norm"]
