"""Is this vector better than a vector of the same norm that knows nothing, or nothing about the labels?

Random directions and label-shuffled vectors answer different questions and are never pooled. The p-value counts
vectors, not inputs: p = (1 + #{|s̄_r| >= |s̄|}) / (R + 1).
"""

from steerstats.nulls.counts import differ_at_least, null_vectors_needed, shown_together
from steerstats.nulls.shuffled import FEWEST_QUESTIONS, shuffled_doubt, shuffled_level, tail_doubt
from steerstats.nulls.table import CANNOT_RESOLVE, DIFFERS, NAMES, NOT_SHOWN, NullTable, null_table

__all__ = [
    "CANNOT_RESOLVE",
    "DIFFERS",
    "FEWEST_QUESTIONS",
    "NAMES",
    "NOT_SHOWN",
    "NullTable",
    "differ_at_least",
    "null_table",
    "null_vectors_needed",
    "shown_together",
    "shuffled_doubt",
    "shuffled_level",
    "tail_doubt",
]
