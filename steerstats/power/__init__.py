"""How small an effect could this study have seen? And how many inputs, pairs or datasets would the next one need?

The effect is a gap, the mean steerability of one shift, or the difference of that mean between two caches. Each has
variance components (`gap_components`, `mean_components`, `difference_components`), and all of them one table of
designs (`smallest_detectable_effect`).
"""

from steerstats.power.components import EffectComponents
from steerstats.power.detectable import PowerTable, noncentrality, smallest_detectable_effect
from steerstats.power.effects import difference_components, gap_components, mean_components

__all__ = [
    "EffectComponents",
    "PowerTable",
    "difference_components",
    "gap_components",
    "mean_components",
    "noncentrality",
    "smallest_detectable_effect",
]
