"""Does steerability survive another prompt, another model, another draw of vector? Functions of per-input slopes."""

from __future__ import annotations

from steerstats.generalization.agreement import cross_model_agreement
from steerstats.generalization.answer_mass import AnswerMass, answer_mass
from steerstats.generalization.compared import ComparedSlopes, compare_slopes
from steerstats.generalization.correlation import CorrelationTable, id_ood_correlation
from steerstats.generalization.disattenuation import Corrected, corrected_spearman
from steerstats.generalization.figure7 import PropensityShift, propensity_shift
from steerstats.generalization.gap import GapTable, gap, gap_table
from steerstats.generalization.overall import OverallGap, overall_gap
from steerstats.generalization.relative import RatioEstimate, RatioTable, ratio, relative_steerability
from steerstats.generalization.slopes import ID_SHIFT, PAPER_SHIFTS, SlopeGrid, parse_shift, shift_name
from steerstats.generalization.table import SteerabilityTable, steerability_table
from steerstats.generalization.variance import VarianceTable, steerability_variance
from steerstats.generalization.vector_error import from_disjoint_folds, with_vector_error
from steerstats.generalization.verdict import Verdict, verdict

__all__ = [
    "ID_SHIFT",
    "PAPER_SHIFTS",
    "AnswerMass",
    "ComparedSlopes",
    "Corrected",
    "CorrelationTable",
    "GapTable",
    "OverallGap",
    "PropensityShift",
    "RatioEstimate",
    "RatioTable",
    "SlopeGrid",
    "SteerabilityTable",
    "VarianceTable",
    "Verdict",
    "answer_mass",
    "compare_slopes",
    "corrected_spearman",
    "cross_model_agreement",
    "from_disjoint_folds",
    "gap",
    "gap_table",
    "id_ood_correlation",
    "overall_gap",
    "parse_shift",
    "propensity_shift",
    "ratio",
    "relative_steerability",
    "shift_name",
    "steerability_table",
    "steerability_variance",
    "verdict",
    "with_vector_error",
]
