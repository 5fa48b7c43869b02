"""What the methods section says of data, model and vectors: from the cache's own record, and nothing it lacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from analyses._cache import between, with_several_wrong
from analyses._words import listed
from reports.methods_order import MOST_NAMES, named, order_of
from reports.operators import acts
from reports.references import Cited
from steerstats.errors import how_many
from steerstats.figures import nice_setting
from steerstats.frames import MAIN_KINDS
from steerstats.protocol import UNNAMED

MADE = {
    "mean_difference": "the mean difference of activations between {}",
    "pca": "the first principal component (about zero, not centred) of the differences of activations between {}",
    "logistic": "the weights of a logistic regression that separates activations of {}",
}
COMPLETIONS = "the two completions of each training pair"
READ = {
    "answer": f"{COMPLETIONS}, at the token where these first differ",
    "last_token": f"{COMPLETIONS}, at the last token of each",
    "completion_mean": f"{COMPLETIONS}, averaged over the tokens of each",
    "last_prompt": "each training prompt with the description of the behaviour and with that of its opposite, at the "
    "last token",
}
LENGTH = {
    "base": "were given the norm of the dataset's base vector",
    "unit": "were given norm 1",
    "none": "kept their own norms",
}
SCOPES = {
    "last_prompt": "from the last prompt token on",
    "first_answer": "from the first answer token on",
    "all": "at all tokens",
    "prompt": "at the tokens of the prompt",
}
SCORES = {
    "logit_diff": "the difference of the two answers' logits at the first token where they differ, in nats",
    "logit_sum": "the difference of the summed logits of the two whole completions, in nats",
    "imported": "what the imported table calls propensity, in nats",
    "logprob_sum": "the difference of the log-probabilities of the two whole completions, in nats",
}
SOURCES = {"Perez": "perez", "Rimsky": "rimsky", "Lin,": "lin"}  # how an attribution starts


def cache_paragraphs(studies: Mapping[str, Any], cite: Cited) -> list[str]:
    """One paragraph for the first cache; of each other one what differs.

    Parameters
    ----------
    studies : mapping of str to Study
        Name of a cache in this run -> its study.
    cite : Cited
    """
    (first, study), *others = studies.items()
    told = [tell(study, cite) for tell in TOPICS]
    intro = f"We measured steering vectors{cite('rimsky', 'tan')}, directions in a language model's activations."
    before = [f'This paragraph is about the cache "{first}".'] if others else []
    paragraphs = [" ".join(filter(None, [intro, *before, *told]))]
    for label, other in others:
        # With a fresh list each, since a work that is cited by now would make two texts differ.
        pairs = [(tell(study, Cited()), tell(other, Cited())) for tell in TOPICS]
        alike = [one == another for one, another in pairs if one or another]
        differs = [tell(other, cite) for tell, (one, another) in zip(TOPICS, pairs) if another and one != another]
        # Of what the other cache has no record, it must not be said that it was alike.
        silent = any(one and not another for one, another in pairs)
        rest = f'Everything else{" that it records" * silent} was as for "{first}".'
        if not differs and not silent:
            paragraphs.append(f'The cache "{label}" was made as "{first}" was.')
            continue
        start = f'The cache "{label}" differs from "{first}" in what follows.'
        paragraphs.append(" ".join([start, *differs, *([rest] if any(alike) else [])]))
    return paragraphs


def _model(study: Any, cite: Cited) -> str:
    if study.kind == "simulated":
        return f"Scores were simulated ({study.model}); no language model gave them."
    if study.kind == "import":
        whose = "" if study.model == UNNAMED else f" of {study.model}"
        return f"Scores{whose} were imported from a table{', which does not name the model' * (not whose)}."
    made = (study.reader.manifest.get("provenance") or {}).get("model") or {}
    facts = [f"revision {made['revision']}"] if made.get("revision") else []
    facts += [str(made[name]) for name in ("dtype", "quantisation") if made.get(name)]
    return f"The model was {study.model}{f' ({listed(facts)})' if facts else ''}."


def _data(study: Any, cite: Cited) -> str:
    units = list(study.units.values())
    inputs, questions = ([len(unit.inputs) for unit in units], [len(set(unit.question)) for unit in units])
    kind = inputs_of(study)
    names = f" ({', '.join(study.datasets)})" if len(units) <= MOST_NAMES else ""
    text = f"The data were {how_many(len(units), 'dataset')}{names} with {how_many(sum(inputs), f'{kind} input')}"
    if len(units) > 1:
        text += f", {between(inputs, 'inputs')} in each"
    if questions != inputs:
        text += f", which came from {how_many(sum(questions), 'question')}"
    text = f"{text}."
    if study.missing:
        # Not a fault of the data: the build goes on where it was stopped, and numbers may then change.
        planned = len(study.reader.planned_units)
        text += f" The build was not finished: {how_many(planned, 'dataset')} were planned, and "
        text += f"{len(study.missing)} of them {'is' if len(study.missing) == 1 else 'are'} not there yet."
    return text


def _inputs(study: Any, cite: Cited) -> str:
    several = with_several_wrong(study)
    against = "several that do not" if len(several) == len(study.datasets) else "one that does not"
    if 0 < len(several) < len(study.datasets):
        against += f", and in {named(several, study.datasets)} against several"
    return f"Each input sets an answer that shows the dataset's behaviour against {against}."


def inputs_of(study: Any) -> str:
    """ "test" or "validation": the inputs that count."""
    return "validation" if study.kind == "sweep" else "test"


def _source(study: Any, cite: Cited) -> str:
    texts = {str(unit.unit.attrs.get("attribution") or "") for unit in study.units.values()}
    keys = sorted({key for start, key in SOURCES.items() for text in texts if text.startswith(start)})
    if not keys:
        return ""
    return f"{'The datasets' if all(texts) else 'Some of the datasets'} are public{cite(*keys)}."


def _split(study: Any, cite: Cited) -> str:
    spec = study.spec
    if not spec.get("split"):
        return ""
    rule = "by a hash of their content" if spec["split"] == "content" else f"by the rule {spec['split']}"
    parts = zip(spec.get("split_percent") or (), ("training", "validation", "test"))
    share = ", ".join(f"{percent}% {part}" for percent, part in parts)
    text = f"Questions were split {rule}{f' ({share})' if share else ''}"
    return f"{text}; all numbers are for {inputs_of(study)} inputs."


def _order(study: Any, cite: Cited) -> str:
    return order_of(study, inputs_of(study))


def _settings(study: Any, cite: Cited) -> str:
    names = [nice_setting(name) for name in study.settings]
    prefill = str((study.spec.get("prompt") or {}).get("prefill") or "")
    words = f'"{" ".join(prefill.split())}"' if prefill.strip() else "white space"
    begun = f" Every reply began with {words}, and its answer came after that." if prefill else ""
    if len(names) == 1:
        return f"Questions were asked in one prompt setting, {names[0]}.{begun}"
    rest = [name for name in names if name != "base"]
    text = f"Questions were asked in {len(names)} prompt settings: "
    text += "base, without a description of the behaviour, and " if "base" in names else ""
    text += f"{listed(rest)}, where the system or user message describes it (positive) or its opposite (negative)."
    return text + begun


def _vectors(study: Any, cite: Cited) -> str:
    """How the vector of each setting was made."""
    made, trained = study.spec.get("vectors") or {}, _trained(study)
    if not trained or not made:
        return ""
    what = MADE.get(made.get("method"), f"by the method {made.get('method')}, from {{}}")
    what = what.format(READ.get(made.get("read"), COMPLETIONS))
    where = f"the settings {listed([nice_setting(name) for name in trained])}"
    where = "each of these settings" if set(trained) == set(study.settings) else where
    where = where if len(trained) > 1 else f"the setting {nice_setting(trained[0])}"
    return f"For each dataset a vector was made in {where}{_training_pairs(study)}: {what}."


def _mean(study: Any, cite: Cited) -> str:
    if not study.spec.get("vectors") or not _has_mean(study):
        return ""
    return "Their mean is one more vector." if len(_trained(study)) > 1 else "Its mean vector is that vector once more."


def _norms(study: Any, cite: Cited) -> str:
    """What was rescaled; of controls it is told where they are."""
    rule, trained = (study.spec.get("vectors") or {}).get("rescale"), _trained(study)
    if rule not in LENGTH or not trained:
        return ""
    if rule != "base":
        return f"These vectors {LENGTH[rule]}."
    # The base vector has its own norm anyway: a sweep, which has no other vector, rescales nothing.
    others = ["the vectors of the other settings"] if set(trained) - {"base"} else []
    others += ["the mean"] if others and _has_mean(study) else []  # the mean of base alone is base
    text = listed(others)
    return f"{text[:1].upper()}{text[1:]} {LENGTH[rule]}." if others else ""


def _elsewhere(study: Any, cite: Cited) -> str:
    made = study.spec.get("vectors") or {}
    elsewhere = list(made.get("files") or ())
    if not elsewhere:
        return ""
    length = LENGTH.get(made.get("files_rescale"))
    text = f"Vectors made elsewhere ({', '.join(elsewhere)}) were measured beside them"
    return f"{text}; they {length}." if length else f"{text}."


def _kinds(study: Any) -> list[tuple[str, str]]:
    return [pair for unit in study.units.values() for pair in _main(unit.unit)]


def _trained(study: Any) -> list[str]:
    return list(dict.fromkeys(setting for setting, kind in _kinds(study) if kind == "trained"))


def _has_mean(study: Any) -> bool:
    return any(kind == "mean" for _, kind in _kinds(study))


def _main(unit: Any) -> list[tuple[str, str]]:
    """(setting, kind) of the vectors that are no controls."""
    rows = zip(unit.read("vector_setting"), unit.read("vector_kind"))
    return [(str(setting), str(kind)) for setting, kind in rows if kind in MAIN_KINDS]


def _training_pairs(study: Any) -> str:
    units = [unit.unit for unit in study.units.values()]
    if not all("pair_question" in unit for unit in units):
        return ""
    return f" from {between([len(unit.read('pair_question')) for unit in units], 'training pairs')}"


def grids_of(study: Any) -> str:
    """ "−1, 0, 1", or where datasets have other multipliers "−1, 0, 1 (a and b); 0, 1, 2 (c)": a table may mix them."""
    grids: dict[str, list[str]] = {}
    for name, unit in study.units.items():
        grid = ", ".join(f"{value:g}".replace("-", "−") for value in unit.multipliers)
        grids.setdefault(grid, []).append(name)
    if len(grids) == 1:
        return next(iter(grids))
    return "; ".join(f"{grid} ({named(names, study.datasets)})" for grid, names in grids.items())


def _steering(study: Any, cite: Cited) -> str:
    unit, grid = study.units[study.datasets[0]], grids_of(study)
    if "vector_layer" not in unit.unit:
        return f"Scores are at the multipliers {grid}."
    layers = sorted({int(one) for unit in study.units.values() for one in np.ravel(unit.unit.read("vector_layer"))})
    where, counted = _blocks(layers), "counted from 0"
    turn = ", one block at a time" if study.kind == "sweep" and len(layers) > 1 else ""
    if elsewhere := _steered_elsewhere(study):
        where = _blocks(elsewhere.pop(""))
        counted += f"; {', '.join(f'{name}: {_blocks(own)}' for name, own in elsewhere.items())}"
    scope = study.spec.get("scope")
    scope = f", {SCOPES.get(scope, scope)}" if scope else ""
    text = f"The vectors {acts(study)} the output of decoder {where} ({counted}){turn}{scope}"
    return f"{text}, at the multipliers {grid}."


def _blocks(layers: Sequence[int]) -> str:
    return f"block{'s' * (len(layers) > 1)} {listed(list(map(str, layers)))}"


def _steered_elsewhere(study: Any) -> dict[str, tuple[int, ...]]:
    """Vectors from files that steer other layers than the trained ones do ("" -> theirs); empty where none does."""
    found: dict[str, tuple[int, ...]] = {}
    for unit in study.units.values() if study.kind != "sweep" else ():
        kinds = dict(_main(unit.unit))
        for name, label in unit.vectors.items():
            own = tuple(sorted(int(one) for one in np.ravel(unit.unit.read("vector_layer", vector=label))))
            found.setdefault(name if kinds.get(name) == "imported" else "", own)
    other = {name: own for name, own in found.items() if own != found.get("")}
    return {"": found[""], **other} if other and "" in found else {}


def _score(study: Any, cite: Cited) -> str:
    scores = list(dict.fromkeys(str(unit.unit.attrs.get("score")) for unit in study.units.values()))
    text = f"Propensity is {' or '.join(SCORES.get(score, f'the score {score}, in nats') for score in scores)}"
    several = with_several_wrong(study)
    rest = "; where there are several wrong answers, it is the log odds of the right one against all of them"
    return f"{text}{rest * bool(several)}."


def _slope(study: Any, cite: Cited) -> str:
    return (
        "The steerability of an input is the least-squares slope of its propensity on the multiplier, in nats per "
        "unit multiplier."
    )


TOPICS: tuple[Callable[[Any, Cited], str], ...] = (
    _model,
    _data,
    _inputs,
    _source,
    _split,
    _order,
    _settings,
    _vectors,
    _mean,
    _norms,
    _elsewhere,
    _steering,
    _score,
    _slope,
)
"""Each says a sentence or more of a cache, or "" where the cache does not tell."""
