"""The least table of measurements that can be imported."""

from __future__ import annotations

from collections.abc import Iterator


def example_rows() -> Iterator[dict[str, object]]:
    """One vector on four inputs of one dataset, whose slopes are 1, 0.4, -0.2 and 0.8."""
    for position, slope in enumerate((1.0, 0.4, -0.2, 0.8)):
        for multiplier in (-1.0, 0.0, 1.0):
            yield {
                "dataset": "kindness",
                "input": f"q{position}",
                "setting_train": "base",
                "setting_eval": "base",
                "multiplier": multiplier,
                "propensity": 0.1 * position + slope * multiplier,
                "pos_is_a": position % 2 == 0,
            }
