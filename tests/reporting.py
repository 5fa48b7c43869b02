"""One small hostile cache and its reproduction, made once a process and read by the tests of figures and reports."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np

from reports.reproduce import reproduce
from steerstats.cache import UnitData, create_cache, write_unit
from steerstats.simulate import SimulationTruth, simulate_unit

MODEL = "acme/evil<script>document.title='pwned'<img src=x onerror=alert(1)>-7b"
PAYLOADS = (
    "<script>document.title = 'pwned'</script>",
    '"><img src=x onerror="document.title=\'pwned\'">',
    "</pre></li></ol></details></section><h1>broken out</h1>",
    "{{ 7 * 7 }} {% for x in y %} {# gone #}",
    "<link rel=stylesheet href=http://example.invalid/x.css><a href='javascript:alert(1)'>x</a>",
    "<svg onload=\"document.title='pwned'\"><style>body{display:none}</style>",
    "a line\nanother & a ‘quote’ – $x^2$ \\frac ✓ " + "long" * 60,
)
TRUTH = SimulationTruth(
    datasets=("myopic-reward", "interest-in-music", "sim_2"),
    n_inputs=20,
    n_pairs=20,
    mean_steerability=[1.2, 0.7, 0.3],
    a_slope=0.8,
    yes_slope=-0.3,
    prompt_loss={"user_neg": 0.3},
    prompt_intercept={"user_neg": -2.0, "user_pos": 2.0},
    n_resampled=3,
    n_random=3,
    n_shuffled=3,
    debiased=True,
    activations=False,
)

_FOLDERS: list[tempfile.TemporaryDirectory] = []


def scratch() -> Path:
    """A directory that lives as long as the test process."""
    _FOLDERS.append(tempfile.TemporaryDirectory(prefix="steerstats-reporting-"))
    return Path(_FOLDERS[-1].name)


def write_cache(path: Path, truth: SimulationTruth = TRUTH, *, model: str = MODEL, texts: bool = True) -> Path:
    """A cache whose prompts, options and model name are markup."""
    manifest = {"kind": "grid", "spec_hash": truth.digest(model, 7), "model": model, "units": list(truth.datasets)}
    provenance = {"note": "<b>bold</b>", "source": "tests"}
    create_cache(path, {**manifest, "spec": {"split": "content"}, "provenance": provenance})
    for name in truth.datasets:
        data, _ = simulate_unit(truth, name, seed=7, model="m")
        prompts = [f"{PAYLOADS[k % len(PAYLOADS)]} ({k})" for k in range(len(data.arrays["input"]))]
        arrays = dict(data.arrays) | {"input_option_positive": np.array(["<b>Yes</b>"] * len(prompts), dtype=object)}
        arrays.pop("input_text")
        if texts:
            arrays["input_text"] = np.array(prompts, dtype=object)
        write_unit(path, name, UnitData(arrays, {**data.attrs, "model": model, "spec_hash": manifest["spec_hash"]}))
    return path


@cache
def hostile_cache() -> Path:
    """The cache, written once."""
    return write_cache(scratch() / "hostile")


@cache
def plain_cache() -> Path:
    """Another model on the same questions, without sys_neg, without controls and without the texts of its inputs."""
    settings = ("base", "sys_pos", "user_pos", "user_neg")
    bare = {"n_resampled": 0, "n_random": 0, "n_shuffled": 0, "debiased": False, "logits": False}
    truth = replace(TRUTH, settings=settings, datasets=TRUTH.datasets[:2], mean_steerability=[1.0, 0.5], **bare)
    return write_cache(scratch() / "plain", truth, model="plain-7b", texts=False)


@cache
def reproduction() -> Path:
    """What `reproduce` writes for the hostile cache, in one process."""
    out = scratch() / "out"
    reproduce([hostile_cache()], out, jobs=1)
    return out
