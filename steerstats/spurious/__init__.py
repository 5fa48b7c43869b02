"""What answer position, the Yes/No token and other nuisance factors do to steerability, and how much they explain."""

from __future__ import annotations

from steerstats.spurious.cells import FactorCells, factor_cells
from steerstats.spurious.clustered import cr2_bell_mccaffrey
from steerstats.spurious.coding import FactorDesign, code_factors
from steerstats.spurious.effects import SpuriousFactors, spurious_factors
from steerstats.spurious.explained import VarianceExplained, published_variance_split, variance_explained
from steerstats.spurious.pooled import PooledSpuriousFactors, pool_spurious_factors

__all__ = [
    "FactorCells",
    "FactorDesign",
    "PooledSpuriousFactors",
    "SpuriousFactors",
    "VarianceExplained",
    "code_factors",
    "cr2_bell_mccaffrey",
    "factor_cells",
    "pool_spurious_factors",
    "published_variance_split",
    "spurious_factors",
    "variance_explained",
]
