"""What the methods section says past one vector and prompt: shifts, other caches, nulls, refits, predictors, power."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from analyses._cache import between
from analyses._candidates import WORDS
from analyses._words import in_words, listed
from reports.methods_factors import where, with_controls
from reports.ran import SIGNS_REFITS, Ran
from reports.references import Cited
from steerstats.figures import nice_setting, nice_shift

NULLS = {
    "random": "random directions of the same norm",
    "shuffled": "label-shuffled vectors (made again with the two answers of a random half of the training questions "
    "exchanged, and given the same norm)",
}


def shifts_paragraph(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> str:
    """Vectors under other prompts, and caches beside each other."""
    lines = []
    shifts = ran.keys("gap_parts", "gap.") or ran.keys("id_vs_ood", "id_ood.")
    if shifts:
        names = listed([nice_shift(*shift.split("->")) for shift in shifts])
        lines.append(f"A shift is a vector made in one setting and used in another; we measured {names}.")
    if "gap_parts" in ran:
        lines += _gaps(ran, cite)
    if "id_vs_ood" in ran:
        lines.append(
            "How far datasets keep their order under a shift was measured by Spearman's correlation over datasets of "
            "their mean steerability with that under base → base"
            f"{cite('spearman')}{_rank_interval(ran, 'id_vs_ood', cite)}."
        )
    lines += _figure7(ran)
    if "variance_id_ood" in ran.by:
        ranks = ", and by their rank correlation over datasets" if ran.keys("variance_id_ood", "variance.") else ""
        lines.append(
            "Variances of steerability were compared by the logarithm of their ratio, with jackknife intervals over "
            f"questions{cite('miller')}{ranks}."
        )
    if "vector_cosines" in ran:
        lines.append("The vectors of the settings were compared by their cosines.")
    return " ".join([*lines, *_caches(ran, studies, cite)])


def _figure7(ran: Ran) -> list[str]:
    """What was correlated with the difference in unsteered propensity: the ratio, the loss, both or neither."""
    script, least = "propensity_difference", ran.number("threshold", "propensity_difference")
    found = ran.keys(script, "figure7.")
    rest = "with the difference in unsteered propensity"
    limits = ", with jackknife intervals over datasets on Fisher's z scale"
    pairs = {"original": "with", "without_self-pairs": "without"}
    having = [name for name in pairs if name in found]
    lines = []
    if having:
        bounded = ran.bounded(script, *(f"figure7.{name}" for name in having))
        lines.append(
            "As in figure 7 of Tan et al., the share of a vector's effect that another prompt leaves (only where the "
            f"effect at home is above {least}) was correlated {rest}, {' and '.join(pairs[name] for name in having)} "
            f"pairs of a prompt with itself{limits * bounded}."
        )
    if "transfer_loss" in found:
        bounded, also = ran.bounded(script, "figure7.transfer_loss"), "also " * bool(lines)
        lines.append(f"The loss under another prompt was {also}correlated {rest}{limits * bounded}.")
    return lines


def _gaps(ran: Ran, cite: Cited) -> list[str]:
    text = (
        "The loss under a shift is the mean over inputs, paired by input, of steerability under base → base minus that "
        "under the shift"
    )
    families = ""
    if ran.keys("gap_parts", "prompt."):
        families = " (of the loss, and of each part by itself)"
        text += (
            "; it is the sum of what the prompt costs a vector made in that prompt itself, and what using the vector "
            "of another prompt there costs on top (transfer)"
        )
    refitted, plain = ran.says("Satterthwaite t", "gap_parts"), ran.says("bootstrap intervals", "gap_parts")
    plain = plain or not refitted
    how = [f"t intervals with the variance over refits in them{cite('satterthwaite')}"] if refitted else []
    how += [f"studentised bootstrap intervals{cite('efron')}"] if plain else []
    resamples = ran.number("n_resamples", "gap_parts")
    at_once = (
        f"Losses have {' or '.join(how)}; bands and p-values for all datasets and shifts at once{families} are "
        f"from single-step max-|t|{cite('westfall')} and from Romano and Wolf's stepwise procedure{cite('romano')}, "
        f"on {resamples} resamples of questions."
    )
    return [f"{text}.", at_once]


def _rank_interval(ran: Ran, script: str, cite: Cited) -> str:
    """What a rank correlation over datasets has for an interval."""
    if not ran.bounded(script):
        return ", without intervals, for which there are too few datasets"
    resamples = ran.number("n_resamples", script)
    return (
        f", with percentile intervals from {resamples} resamples of datasets; the tables add analytic intervals"
        f"{cite('bonett')}, the correlation corrected for measurement noise, and intervals for these very datasets"
    )


def _caches(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> list[str]:
    lines = []
    if "cross_model" in ran:
        again = ", with intervals as above" if "id_vs_ood" in ran else _rank_interval(ran, "cross_model", cite)
        lines.append(
            "Agreement between two models is Spearman's correlation over datasets of their mean steerability"
            f"{'' if 'id_vs_ood' in ran else cite('spearman')}{again}."
        )
    if "comparison" in ran:
        resamples = ran.number("n_resamples", "comparison")
        means = ran.says("limits by Bonferroni over pairs", "comparison")  # one shared dataset has no mean over them
        lines.append(
            "Caches are compared by the mean difference of slopes over the inputs that both hold, paired by input, "
            "with bands and p-values for all pairs of caches, datasets and shifts at once, by single-step max-|t|"
            f"{cite('westfall')} and the stepwise procedure{cite('romano')} on {resamples} resamples of questions"
            f"{'; means over datasets have limits by Bonferroni' * means}."
        )
        if power := ran.number("power", "comparison"):
            lines.append(
                "Beside each difference stands the smallest true one that such a comparison detects (two-sided t test "
                f"at {ran.number('alpha', 'comparison')} with power {power}), from the components of its variance."
            )
    if "split_leakage" in ran:
        lines.append(
            "The overlapping split is compared with the clean one dataset by dataset; the difference's errors are over "
            "questions, each counted once where both test splits hold it."
        )
    if "layer_sweep" in ran:
        lines += _layers(ran, studies, cite)
    return lines


def _layers(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> list[str]:
    """Which layer a sweep takes, the interval of its mean, and how sure the choice is."""
    resamples = ran.number("n_resamples", "layer_sweep")
    # Taking a direction out lowers propensity where it works, and the rule turns round.
    ends = [end for end in ("highest", "lowest") if ran.says(f"choice of the {end}", "layer_sweep")]
    several = any(study.kind == "sweep" and len(study.datasets) > 1 for study in studies.values())
    over = "datasets" if several else "questions"
    if not ends:  # one layer, and nothing to choose
        return [f"The mean at the layer has a t interval over {over}."]
    rule = (
        f"The layer is the one with the {' or, under operator ablate, '.join(ends)} mean steerability over datasets, "
        f"each counting once; we give the share of {resamples} resamples of questions in which it is so. The mean at a "
        f"layer has a t interval over {over}, which does not allow for the choice of the layer."
    )
    lines = [rule]
    if ran.says("on others: paired t(", "layer_sweep"):
        lines.append(
            f"A subset of the layers that holds the best one on datasets such as these{cite('gupta')} is selected by "
            "one-sided paired t tests over datasets of the chosen layer against every other, with p-values adjusted "
            "by Bonferroni."
        )
    return lines


def doubts_paragraph(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> str:
    """Nulls, refits, predictors and the size of the study; "" where none ran."""
    lines = [_nulls(ran, studies, cite)]
    if "vector_sampling_error" in ran or ran.keys("per_input_steerability", SIGNS_REFITS):
        lines.append(_refits(ran, studies, cite))
    if "predictors" in ran:
        lines.append(_predictors(ran, cite))
    if "power" in ran:
        alpha, power = ran.number("alpha", "power"), ran.number("power", "power")
        parts = ["between datasets"] if any(claim.n > 1 for claim in ran.claims("power")) else []
        refitted = all(claim.facts["vector_error"] for claim in ran.claims("power"))
        parts += ["between questions", *["over refits"] * refitted]
        lines.append(
            f"The smallest mean loss that a study of this size detects (two-sided t test at {alpha} with power "
            f"{power}) was computed from the variance{'s' * (len(parts) > 1)} {listed(parts)}."
        )
    return " ".join(filter(None, lines))


def _refits(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> str:
    """How the vector's own error was measured, which intervals hold it, and the reliability that it gives."""
    refits, having = _controls(studies, "resampled"), with_controls(studies, "resampled")
    made = [nice_setting(name) for name in dict.fromkeys(name for own in refits.values() for name in own)]
    counts = {label: [count for each in own.values() for count in each] for label, own in refits.items()}
    some = where({label: having[label] for label in refits}, {label: studies[label] for label in refits})
    whose = f"the datasets that have any{some}" if some else "each dataset"
    text = (
        f"{_only(refits, studies)} vector's own sampling error was measured with {_numbers(counts)} refits of "
        f"the {listed(made)} vector{'s' * (len(made) > 1)} of {whose}, on bootstrap resamples of the "
        f"training questions{_refit_norms(refits, studies)}. Intervals that include it add the variance over "
        f"refits to that over questions, with Satterthwaite's degrees of freedom{cite('satterthwaite')}"
    )
    if "vector_sampling_error" in ran:
        text += "; the reliability of slopes is the share of their variance between inputs that refits do not explain"
    return f"{text}. Other intervals of a single dataset hold for these very vectors."


def _nulls(ran: Ran, studies: Mapping[str, Any], cite: Cited) -> str:
    kinds = [kind for kind in NULLS if kind in ran.keys("null_vectors", "null.")]
    if not kinds:
        return ""
    found = {kind: _controls(studies, kind) for kind in kinds}
    each = {kind: {label: own["base"] for label, own in found[kind].items() if own.get("base")} for kind in kinds}
    holders = {label: None for own in found.values() for label in own}
    text = (
        f"{_only(holders, studies, 'Each')} dataset's base vector was ranked by the size of its mean steerability "
        f"among {listed([f'{_numbers(counts)} {NULLS[kind]}' for kind, counts in each.items()])}; two-sided p = (1 + "
        f"number of null vectors with at least as large a mean) / (1 + number of null vectors){cite('phipson')}."
    )
    if "shuffled_together" in ran.keys("null_vectors", "null."):
        text += (
            f" How many vectors at least differ from label-shuffled ones was bounded by partial conjunctions"
            f"{cite('heller')}: Fisher's combination of the largest p-values, each first taken to the tail of t over "
            "training questions."
        )
    return text


def _controls(studies: Mapping[str, Any], kind: str) -> dict[str, dict[str, list[int]]]:
    """Cache -> training setting -> how many control vectors of a kind each dataset has, of those that have any."""
    found: dict[str, dict[str, list[int]]] = {}
    for label, study in studies.items():
        for unit in study.units.values() if study.kind != "sweep" else ():
            for made in unit.vectors:
                if own := unit.controls(kind, made):
                    found.setdefault(label, {}).setdefault(made, []).append(len(own))
    return found


def _only(holders: Mapping[str, Any], studies: Mapping[str, Any], word: str = "A") -> str:
    """A sentence's first word, after the caches that it holds for where these are not all."""
    if len(holders) == len(studies):
        return word
    return f"In {caches_named(holders)} {word.lower()}"


def caches_named(labels: Iterable[str]) -> str:
    """'the cache "a"', or 'the caches "a" and "b"'."""
    names = [f'"{label}"' for label in labels]
    return f"the cache{'s' * (len(names) > 1)} {listed(names)}"


def _numbers(counts: Mapping[str, Sequence[int]]) -> str:
    """ "10", "5 to 10" where datasets of one cache differ, or '5 (in "a") and 10 (in "b")' where caches do."""
    alike: dict[str, list[str]] = {}
    for label, own in counts.items():
        alike.setdefault(between(own, "").strip(), []).append(f'"{label}"')
    if len(alike) == 1:
        return next(iter(alike))
    return listed([f"{number} (in {listed(labels)})" for number, labels in alike.items()])


def _refit_norms(refits: Mapping[str, Mapping[str, Any]], studies: Mapping[str, Any]) -> str:
    """Refits go through the whole procedure: a base vector made anew keeps the norm that it comes out with."""
    rules = {(studies[label].spec.get("vectors") or {}).get("rescale") for label in refits}
    if rules != {"base"}:
        # Of norm 1, or all as they came out, is already said of all vectors.
        return ""
    settings = {setting for own in refits.values() for setting in own}
    parts = ["a refitted base vector keeps its own norm"] * ("base" in settings)
    parts += ["the others are given the norm of the base vector of the same resample"] * bool(settings - {"base"})
    return f"; {' and '.join(parts)}"


def _predictors(ran: Ran, cite: Cited) -> str:
    names = [WORDS.get(key, in_words(key)) for key in ran.keys("predictors", "predictors.")]
    text = (
        f"As candidate predictors of steerability{cite('bas', 'braun')} we computed from the training activations "
        f"{listed(names)}, and correlated each with mean steerability over datasets (Spearman"
    )
    if ran.bounded("predictors"):
        resamples = ran.number("n_resamples", "predictors")
        text += f"; percentile intervals, {resamples} resamples"
    # So few datasets that they can be arranged in a few ways only are permuted, and have no p-value for it.
    judged = any(claim.facts["judged"] for claim in ran.claims("predictors"))
    permutations = ran.number("n_permutations", "predictors") if judged else ""
    return f"{text}; family-wise p-values from {permutations} permutations)." if permutations else f"{text})."
