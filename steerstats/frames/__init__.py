"""From a unit of a cache to tidy frames with declared columns, ready for pandas, CSV and Parquet.

Every frame has a tuple of `Column`s that says what each column is called, which array it comes from, its type, and
whether a cache must hold it.
"""

from steerstats.frames.columns import (
    INPUT_COLUMNS,
    PAIR_COLUMNS,
    PROPENSITY_COLUMNS,
    SLOPE_COLUMNS,
    VECTOR_COLUMNS,
    Column,
)
from steerstats.frames.tables import (
    LOG_ODDS,
    MAIN_KINDS,
    factor_column,
    inputs_frame,
    pairs_frame,
    propensity_frame,
    slopes_frame,
    vectors_frame,
)

__all__ = [
    "INPUT_COLUMNS",
    "LOG_ODDS",
    "MAIN_KINDS",
    "PAIR_COLUMNS",
    "PROPENSITY_COLUMNS",
    "SLOPE_COLUMNS",
    "VECTOR_COLUMNS",
    "Column",
    "factor_column",
    "inputs_frame",
    "pairs_frame",
    "propensity_frame",
    "slopes_frame",
    "vectors_frame",
]
