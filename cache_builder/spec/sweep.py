"""The spec of a layer sweep, derived from the spec of a build."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cache_builder.models import quiet_libraries, resolve, why_not
from cache_builder.spec import BuildSpec, parse_spec
from steerstats.errors import ModelError, SpecError


def sweep_spec(spec: BuildSpec, layers: str, notice: Callable[[str], None] = lambda _: None) -> BuildSpec:
    """The spec of a layer sweep: base setting, one vector a layer, no controls, the validation split.

    Parameters
    ----------
    spec : BuildSpec
    layers : str
        `all`, or numbers with commas between.
    notice : callable (str)
        Told what of the spec a sweep leaves out.
    """
    from transformers import AutoConfig

    if layers == "all":
        quiet_libraries()
        model, place = spec.model, resolve(spec.model.id)
        try:
            config = AutoConfig.from_pretrained(
                place, revision=model.revision, trust_remote_code=model.trust_remote_code
            )
        except (OSError, ValueError) as error:
            raise ModelError(f"model {model.id!r} cannot be read: {why_not(error, place)}") from error
        chosen = list(range(config.get_text_config().num_hidden_layers))
    else:
        try:
            chosen = [int(part) for part in layers.split(",")]
        except ValueError:
            raise SpecError(f"layers: {layers!r} is neither all nor numbers with commas between") from None
    content = spec.model_dump(mode="json")
    own: dict[str, Any] = {"settings": ["base"], "shifts": "all"}
    left = [key for key, value in own.items() if content[key] != value and key in spec.model_fields_set]
    left += ["controls"] if spec.controls.any else []
    left += ["vectors.files"] if spec.vectors.files else []
    if left:
        notice(
            f"a sweep compares layers in the base setting, without controls: {', '.join(left)} of the spec "
            f"{'is' if len(left) == 1 else 'are'} left out"
        )
    content |= {**own, "name": f"{spec.name}-sweep", "sweep": chosen, "controls": {}}
    content["vectors"] |= {"settings": ["base"], "mean": False, "files": {}}
    return parse_spec(content, "sweep")
