"""Figures of results: each function takes numbers that an estimator made, draws them on an Axes, and returns it.

Nothing is computed here. `style()` and `canvas()` give the house style without touching pyplot; `save()` writes SVG and
PDF that are the same bytes for the same figure.
"""

from steerstats.figures.bias import (
    before_and_after,
    by_option,
    effect_rows,
    option_counts,
    total_share,
    variance_shares,
)
from steerstats.figures.controls import (
    against_null,
    detectable_effect,
    foretelling,
    layer_profile,
    mass_curves,
    null_share,
    two_intervals,
)
from steerstats.figures.parts import key, key_outside, note
from steerstats.figures.theme import PALETTE, canvas, nice_setting, nice_shift, save, short, shorts, style, svg_text
from steerstats.figures.transfer import (
    agreement,
    coefficient_rows,
    cosine_table,
    gap_rows,
    paired_rows,
    propensity_and_relative,
    setting_row,
    spread_rows,
    transfer_table,
)
from steerstats.figures.variability import (
    anti_share,
    misfit_rows,
    per_input,
    propensity_curve,
    propensity_curves,
    range_sensitivity,
    slope_and_misfit,
)

__all__ = [
    "PALETTE",
    "against_null",
    "agreement",
    "anti_share",
    "before_and_after",
    "by_option",
    "canvas",
    "coefficient_rows",
    "cosine_table",
    "detectable_effect",
    "effect_rows",
    "foretelling",
    "gap_rows",
    "key",
    "key_outside",
    "layer_profile",
    "mass_curves",
    "misfit_rows",
    "nice_setting",
    "nice_shift",
    "note",
    "null_share",
    "option_counts",
    "paired_rows",
    "per_input",
    "propensity_and_relative",
    "propensity_curve",
    "propensity_curves",
    "range_sensitivity",
    "save",
    "setting_row",
    "short",
    "shorts",
    "slope_and_misfit",
    "spread_rows",
    "style",
    "svg_text",
    "total_share",
    "transfer_table",
    "two_intervals",
    "variance_shares",
]
