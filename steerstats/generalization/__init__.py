"""Does steerability survive another prompt, another model, another draw of vector? Functions of per-input slopes."""

from __future__ import annotations

from steerstats.generalization.correlation import CorrelationTable, cross_model_agreement, id_ood_correlation
from steerstats.generalization.disattenuation import Corrected, corrected_spearman
from steerstats.generalization.gap import GapTable, gap, gap_table
from steerstats.generalization.relative import RatioEstimate, RatioTable, ratio, relative_steerability
from steerstats.generalization.slopes import ID_SHIFT, PAPER_SHIFTS, SlopeGrid, parse_shift, shift_name
from steerstats.generalization.vector_error import from_disjoint_folds, with_vector_error

__all__ = [
    "ID_SHIFT",
    "PAPER_SHIFTS",
    "Corrected",
    "CorrelationTable",
    "GapTable",
    "RatioEstimate",
    "RatioTable",
    "SlopeGrid",
    "corrected_spearman",
    "cross_model_agreement",
    "from_disjoint_folds",
    "gap",
    "gap_table",
    "id_ood_correlation",
    "parse_shift",
    "ratio",
    "relative_steerability",
    "shift_name",
    "with_vector_error",
]
