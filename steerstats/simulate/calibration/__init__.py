"""How often intervals cover and tests err: cells of simulated studies, and the committed table of what they gave."""

from __future__ import annotations

from steerstats.simulate.calibration.table import CELLS, COLUMNS, TABLE, calibration_table

__all__ = ["CELLS", "COLUMNS", "TABLE", "calibration_table"]
