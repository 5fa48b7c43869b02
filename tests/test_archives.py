"""Caches of every past schema version can still be read, and say what they said when they were written."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from steerstats.cache import VERSION, CacheReader, verify
from steerstats.cache.schema import READABLE_VERSIONS
from steerstats.study import open_cache

ARCHIVES = Path(__file__).parent / "data" / "archives"
FORMS = [f"v{version}/{form}" for version in sorted(READABLE_VERSIONS) for form in ("directory", "packed.h5")]
SLOPES = {
    "v1": {
        "alpha": [0.81071377, 1.04661369, 0.73647881, 0.13879395],
        "beta": [2.14879131, 1.32550144, 1.36837387, 3.29835224],
    }
}
CONTENT = {
    "v1": {
        "alpha": "fcac8ab169ed1b664839321908c432da3eddf244b3927ac5982e3b830e10943f",
        "beta": "30602ee651dd498e5758515fc52b46d9bf48ae20993839cc48ee14029da16608",
    }
}


def test_every_readable_version_has_an_archive_and_the_current_one_is_readable():
    assert sorted(path.name for path in ARCHIVES.iterdir()) == [f"v{version}" for version in sorted(READABLE_VERSIONS)]
    assert VERSION in READABLE_VERSIONS


@pytest.mark.parametrize("form", FORMS)
def test_archives_pass_verify_and_hold_their_content(form):
    assert [check for check in verify(ARCHIVES / form) if not check.ok] == []
    cache = CacheReader(ARCHIVES / form)
    assert {name: cache[name].sidecar["content_sha256"] for name in cache.units} == CONTENT[form.split("/")[0]]


@pytest.mark.parametrize("form", FORMS)
def test_archives_give_the_slopes_they_gave(form):
    study = open_cache(ARCHIVES / form)
    for name, slopes in SLOPES[form.split("/")[0]].items():
        np.testing.assert_allclose(study.slopes(name).at("base->base"), slopes, rtol=1e-7)
    assert study.generalization(n_resamples=50).gaps.shifts == ("base->user_neg",)
