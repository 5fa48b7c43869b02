"""A unit opens in xarray, with its coordinates under their own names."""

from __future__ import annotations

import numpy as np
import pytest
from test_cache import make_cache, make_unit

from steerstats.cache import BY_NAME

xarray = pytest.importorskip("xarray", reason="the interop extra is not installed")
pytest.importorskip("h5netcdf", reason="the interop extra is not installed")


def test_xarray_opens_a_unit_with_its_coordinates(tmp_path):
    make_cache(tmp_path)
    with xarray.open_dataset(tmp_path / "units" / "openness.h5", engine="h5netcdf") as data:
        for name in data.variables:
            assert data[name].dims == BY_NAME[name].dims
        picked = data["propensity"].sel(setting_eval="user_neg", vector="mean", multiplier=1.0)
        np.testing.assert_array_equal(picked, make_unit().arrays["propensity"][4, 5, 2])
