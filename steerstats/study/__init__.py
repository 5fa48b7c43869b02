"""A cache as a study: every question of the field is one method, every answer a frozen result.

    study = steerstats.open_cache("my-cache")
    print(study.steerability().summary())
    gaps = study.generalization(seed=1)

The robustness checks (nulls, refits, straightness, ...) are in `steerstats.study.doubts`.

Conventions: inputs of split "test" only, complete cases across the settings compared, main vectors only (controls
enter as refits and nulls), every random number from an explicit seed and the dataset's name.
"""

from steerstats.study.base import demo_cache
from steerstats.study.study import Study, open_cache

__all__ = ["Study", "demo_cache", "open_cache"]
