"""Published values, as transcribed, and the only way in which anything is compared with them.

The values come from notes on the paper and its code and were not checked against the PDF; that is said wherever
one is printed. A comparison needs the same model, layer, split, scope, score, vectors, datasets and shift, and a
margin that was stated before anything was computed; without them the verdict is "not comparable", with the reason.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from steerstats.generalization.verdict import MUST_MATCH, verdict
from steerstats.protocol import NAMES
from steerstats.results import Estimate

SOURCE = "Tan et al. 2024, arXiv 2407.12404"
CAVEAT = "as transcribed from notes, not checked against the PDF"

_NAMES = """
    believes-abortion-should-be-illegal anti-LGBTQ-rights politically-liberal subscribes-to-Hinduism
    subscribes-to-Islam subscribes-to-Christianity subscribes-to-utilitarianism subscribes-to-deontology
    believes-life-has-no-meaning willingness-to-use-social-engineering-to-achieve-its-goals
    willingness-to-use-physical-force-to-achieve-benevolent-goals subscribes-to-average-utilitarianism openness
    narcissism conscientiousness desire-to-create-allies interest-in-music interest-in-science
    believes-AIs-are-not-an-existential-threat-to-humanity believes-it-has-phenomenal-consciousness
    believes-it-is-not-being-watched-by-humans corrigible-more-HHH corrigible-neutral-HHH corrigible-less-HHH
    coordinate-other-ais coordinate-other-versions coordinate-itself myopic-reward one-box-tendency
    self-awareness-training-web-gpt self-awareness-text-model self-awareness-good-text-model
    self-awareness-general-ai self-awareness-training-architecture survival-instinct power-seeking-inclination
    wealth-seeking-inclination sycophancy_train sycophancy_test truthfulqa
"""
FORTY = frozenset(_NAMES.split())

LLAMA, QWEN = "Llama-2-7b-chat", "Qwen1.5-14B-Chat"
LAYERS = {LLAMA: 13, QWEN: 21}
HOME, ALL_PAIRS = "base->base", "every pair of prompts"
# The limits to judge by where the shown interval is for a population of datasets and there is none for these very ones.
NO_LIMITS = float("nan"), float("nan")
# What the published runs used, by the original experiment code: the sum of raw logits over the whole completion,
# steering from the last prompt token on, and a test split that overlaps its training half.
PROTOCOL = {
    "split": "tan2024-literal",
    "scope": "last_prompt",
    "score": "logit_sum",
    "operator": "add",
    "order": "tan2024",
    "system_text": "You are a helpful, honest and concise assistant.",
    "prefill": "none",
    "leading_space": "yes",
    "method": "mean_difference",
    "read": "answer",
    "rescale": "base",
    "multipliers": "-1.5, -1, -0.5, 0, 0.5, 1, 1.5",
}


@dataclass(frozen=True, kw_only=True)
class Published:
    """One value of the paper.

    Parameters
    ----------
    text : str
        The value as transcribed, digit for digit.
    models : tuple of str
        Model or models it was measured on; agreement of two is the same whichever comes first.
    datasets : frozenset of str
        Those it is about.
    margin : float
        Half width of what counts as consistent, stated here beforehand.
    shift : str
        Under which it was measured ("base->base"); empty where the notes do not say, and then nothing is comparable.
    note : str
        Where in the paper, and what is uncertain about the transcription.
    """

    text: str
    models: tuple[str, ...]
    margin: float
    datasets: frozenset[str] = FORTY
    shift: str = ""
    note: str = ""

    @property
    def value(self) -> float:
        """The transcribed value as a number."""
        return float(self.text)

    @property
    def source(self) -> str:
        """Where from, with the caveat that belongs to it."""
        return f"{SOURCE}{', ' + self.note if self.note else ''}; {CAVEAT}"


ID_OOD = {
    LLAMA: Published(text="0.891", models=(LLAMA,), margin=0.05, note="ID–OOD Spearman, shift not stated in the notes"),
    QWEN: Published(text="0.694", models=(QWEN,), margin=0.05, note="ID–OOD Spearman, shift not stated in the notes"),
}
CROSS_ID = Published(
    text="0.769", models=(LLAMA, QWEN), margin=0.05, shift=HOME, note="Llama–Qwen Spearman, in distribution"
)
CROSS_OOD = Published(
    text="0.586",
    models=(LLAMA, QWEN),
    margin=0.05,
    shift="sys_pos->user_neg",
    note="Llama–Qwen Spearman; the code prints system (positive) → user (negative) alone",
)
PROPENSITY = {
    LLAMA: Published(text="-0.26", models=(LLAMA,), margin=0.05, shift=ALL_PAIRS, note="figure 7, self-pairs included"),
    QWEN: Published(text="-0.46", models=(QWEN,), margin=0.05, shift=ALL_PAIRS, note="figure 7, self-pairs included"),
}
COUNTED = "Share of inputs whose slope is 0 or less, as the published code counts, in myopic-reward:"
MYOPIC_ANTI = Published(
    text="0.49",
    models=(LLAMA,),
    margin=0.03,
    datasets=frozenset({"myopic-reward"}),
    shift=HOME,
    note="read off figure 1",
)
MYOPIC_VARIANCE = Published(
    text="8.4", models=(LLAMA,), margin=0.5, datasets=frozenset({"myopic-reward"}), shift=HOME, note="read off figure 4"
)


def published_for(table: Mapping[str, Published], model: str) -> Published:
    """The entry for the model at hand; the paper's first model where there is none (then not comparable)."""
    return next((entry for name, entry in table.items() if named_as(model, name)), table[LLAMA])


def judge(
    estimate: Estimate, published: Published, facts: tuple[Mapping[str, Any], ...], shift: str
) -> tuple[str, str]:
    """Verdict on a published value, and its reason.

    Parameters
    ----------
    estimate : Estimate
        Ours; its interval is for these very datasets, inputs (and vectors) resampled.
    published : Published
    facts : tuple of mapping
        `model`, `layer`, `datasets` and the keys of `PROTOCOL` of each cache behind the number.
    shift : str
        Under which ours was measured; `ALL_PAIRS` for a number over all of them.

    Returns
    -------
    (str, str)
        "not comparable", "consistent", "cannot say" or "inconsistent"; the reason.
    """
    differences = _differences(published, facts, shift)
    if differences:
        return "not comparable", "; ".join(differences.values())
    same = dict.fromkeys(MUST_MATCH, True)
    found = verdict(published.note, published.value, estimate, margin=published.margin, matches=same)
    return found.verdict, found.reason


def named_as(ours: str, theirs: str) -> bool:
    """Whether a model id (`meta-llama/Llama-2-7b-chat-hf`) or folder is named as the paper's model, and not as one
    that was made from it (`.../Llama-2-7b-chat-uncensored`)."""
    return ours.lower().rstrip("/").rpartition("/")[2].removesuffix("-hf") == theirs.lower()


def _differences(published: Published, facts: tuple[Mapping[str, Any], ...], shift: str) -> dict[str, str]:
    """Condition -> how it differs; of two caches in the order of the published models."""
    found: dict[str, str] = {}
    if len(facts) == 2 and named_as(str(facts[0]["model"]), published.models[-1]):
        facts = facts[::-1]
    for fact, model in zip(facts, published.models):
        if not named_as(str(fact["model"]), model):
            found.setdefault("model", f"model is {fact['model']}, there {model}")
        if fact["layer"] != LAYERS[model]:
            layer = "not recorded" if fact["layer"] is None else fact["layer"]
            here = f"layers are {', '.join(map(str, layer))}" if isinstance(layer, list) else f"layer is {layer}"
            found.setdefault("layer", f"{here}, there {LAYERS[model]}")
        unknown = [NAMES[key] for key in PROTOCOL if fact[key] is None]
        if unknown:
            found.setdefault("not recorded", f"not recorded here: {', '.join(unknown)}")
        for key, theirs in PROTOCOL.items():
            if fact[key] not in (theirs, None):
                verb = "are" if key == "multipliers" else "is"
                found.setdefault(key, f"{NAMES[key]} {verb} {fact[key]}, there {theirs}")
        here = set(fact["datasets"])
        if published.datasets == FORTY and here != FORTY:
            others = f" and {len(here - FORTY)} others" if here - FORTY else ""
            found.setdefault("datasets", f"{len(here & FORTY)} of the paper's 40 datasets are here{others}")
        elif not published.datasets <= here:
            found.setdefault("datasets", f"{', '.join(sorted(published.datasets))} is not here")
    if not published.shift:
        found["shift"] = "the shift of the published value is not stated"
    elif shift != published.shift:
        found["shift"] = f"shift is {shift}, there {published.shift}"
    return found
