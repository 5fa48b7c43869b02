"""Several caches side by side: what differs in the steerability of every dataset, paired by input, in every shift."""

import numpy as np

from analyses._cache import current_seed, datasets_of, facts_of, several_studies
from analyses._claim import Finding, command_line, publish
from analyses._compared import compared, detectable, difference_claims, error_words, forests, labelled
from analyses._words import percent
from steerstats.protocol import UNNAMED

TITLE = "Differences in steerability between caches"
PAPER = ""


def main(cache, out):
    """Every pair of caches, second minus first, in every shift that both have, with one family of bands."""
    several_studies(cache, "a cache to compare with")
    studies = labelled(cache)
    result = compared(studies)
    frame, (drawn, pages) = result.to_frame(), forests(result)
    least = detectable(studies, result)
    claims, unseen = tuple(difference_claims(result, least)), _not_told_apart(list(least.values()))
    n, matched = datasets_of(len(result.datasets)), result.n_inputs.sum(axis=1)
    held = dict.fromkeys(matched[matched > 0].tolist())  # a pair may share no dataset
    found = Finding.of(
        result, script="comparison", title=TITLE, paper=PAPER, claims=claims, pages=pages,
        reading="One panel a shift, one row a dataset, over the inputs that both caches hold; right of zero, the cache "
        "that stands before the minus steers more. "
        + "; ".join(_which(label, study) for label, study in studies.items()) + f".{unseen}",
        bars=f"thick: 95% intervals of the mean paired difference, {error_words(frame)}; hair lines: bands that hold "
        "for all pairs, datasets and shifts at once.",
        counted=f"{' and '.join(map('{:,}'.format, held))} inputs that both of a pair hold, in {n}.",
        alt=f"Paired differences in mean steerability between {len(studies)} caches in {n} and {len(result.shifts)} "
        f"shifts; they run from {frame['estimate'].min():.3f} to {frame['estimate'].max():.3f}.",
        seed=current_seed(), facts={label: facts_of(study) for label, study in studies.items()},
        numbers={**result.numbers, **{name: one.numbers[name] for one in least.values() for name in one.numbers}},
    )  # fmt: skip
    return publish(out, found, drawn, frame)


def _not_told_apart(least):
    """How to read a difference that was not found, where that can be said."""
    if not least:
        return ""
    power, several = percent(least[0].power), any(np.isfinite(one.effect_high[0]) for one in least)
    limits = " (in brackets, at the 95% limits of the variance between datasets, the other components as fitted)"
    return (
        " Where no difference is found, the claims name the true difference that the 95% interval of that shift "
        f"finds, by itself, {power} of the time{limits * several}; smaller ones are missed more often."
    )


def _which(label, study):
    """What a cache of the comparison is: its model, if that has a name."""
    return f"the model of {label} is not recorded" if study.model == UNNAMED else f"{label} is {study.model}"


if __name__ == "__main__":
    command_line(main, __doc__)
