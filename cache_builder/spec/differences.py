"""In what a cache that is there differs from a spec: what whoever gets a build refused would look for by hand."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from cache_builder.spec.model import BuildSpec
from steerstats.errors import SpecError

SHOWN = 4  # keys; who changed more is better off with another directory
_HASH = re.compile('"[0-9a-f]{64}"')
_FOLLOWS = {  # what says nothing new where a key of the spec behind it has changed, and the beginnings of such keys
    "spec.training_settings": ("spec.settings",),
    "spec.controls.exchanged": ("spec.controls.shuffled",),
    "facts.descriptions": ("spec.settings",),
    "facts.layers": ("spec.layers", "spec.sweep"),
    "facts.activation_layers": ("spec.layers", "spec.sweep", "spec.activation_layers"),
    "facts.model.dtype": ("spec.model.dtype",),
    "facts.model.attention": ("spec.model.attention",),
}


def what_differs(manifest: Mapping[str, Any], spec: BuildSpec, facts: Mapping[str, Any]) -> str:
    """Keys of a spec, and files behind it, that are not as in a cache's manifest: " (seed: 0 there, 1 here)".

    Parameters
    ----------
    manifest : mapping
        Of the cache that is there.
    spec : BuildSpec
    facts : mapping
        What `spec.hash` takes beside the spec.

    Returns
    -------
    str
        "" where the manifest does not say, as where it is of a version with other keys.
    """
    try:
        theirs = {"spec": BuildSpec.model_validate(manifest.get("spec")).hashed(), "facts": manifest.get("facts")}
    except (ValidationError, SpecError):
        return ""
    there, here = _flat(theirs), _flat({"spec": spec.hashed(), "facts": json.loads(json.dumps(facts))})
    keys = [key for key in dict.fromkeys([*here, *there]) if here.get(key) != there.get(key)]
    follows = [start for start, behind in _FOLLOWS.items() if set(behind) & set(keys)]
    keys = [key for key in keys if not key.startswith(tuple(follows))]
    said = [_said(key, there.get(key, "not set"), here.get(key, "not set")) for key in keys]
    more = [f"and {len(said) - SHOWN} more"] * (len(said) > SHOWN)
    return f" ({'; '.join(said[:SHOWN] + more)})" if said else ""


def _flat(content: Any, key: str = "") -> dict[str, str]:
    """Dotted keys to values as JSON; a list is one value."""
    if not isinstance(content, dict) or not content:
        return {key: json.dumps(content, ensure_ascii=False)}
    parts = [_flat(value, f"{key}.{name}" if key else str(name)) for name, value in content.items()]
    return {name: value for part in parts for name, value in part.items()}


def _said(key: str, there: str, here: str) -> str:
    name = (key.partition(".")[2] or key).replace("training_settings", "vectors.settings")
    if _HASH.fullmatch(there) and _HASH.fullmatch(here):
        return f"{name}: other content"
    return f"{name}: {_short(there)} there, {_short(here)} here"


def _short(value: str) -> str:
    return value if len(value) <= 60 else f"{value[:57]}..."
