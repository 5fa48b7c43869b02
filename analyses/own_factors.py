"""Factors of one's own: what a topic, a length or a source does to steerability, beside A/B and Yes/No."""

import numpy as np

from analyses._cache import ask, by_median, current_seed, datasets_of, facts_of, lacking, plain_mean, study_of
from analyses._claim import Finding, command_line, publish
from analyses._effects import BARS, of_slopes, said_of
from analyses._own import beside, changed, held_fixed, of_factor, panels, usable, why_not
from analyses._shares import share_claims
from analyses._words import in_words
from steerstats import figures

TITLE = "Effects of factors of your own on steerability"
PAPER = ""


def main(cache, out):
    """Effects and shares of variance of the user's own factors, A/B and Yes/No held fixed."""
    study = study_of(cache)
    own, notes = usable(study)
    result = ask(study, "spurious_factors", factors=(*beside(study), *own))
    rows, shares = by_median(result.to_frame(), study), by_median(result.explained_frame(), study)
    (_, fixed), fitted = held_fixed(rows["term"]), rows
    effects = rows["term"].map(of_factor).isin(own) & ~rows["term"].str.contains("[", regex=False)
    rows = rows[effects & (rows["model"] == "per-input") & (rows["response"] == "slope")]
    claims, drawn = [], {}
    with figures.style():
        for factor, kind in own.items():
            part, name = shares[shares["component"] == factor], in_words(factor)
            terms, frames = dict.fromkeys(term for term in rows["term"] if of_factor(term) == factor), {}
            if not terms or part.empty:
                notes.append(f"{name} {why_not(study, factor)}")
                continue
            along, _ = held_fixed(fitted["term"][fitted["dataset"].isin(part["dataset"])])
            mean = plain_mean(part["share"], f"share of {factor}", "share", bounds=(-np.inf, np.inf))
            text = f"Share of the variance of steerability, adjusted for chance, that {name} explains{along}"
            most = dict(part.rename(columns={"share": "estimate"}).loc[part["share"].idxmax()])
            keys = f"own.{factor}.share", f"own.{factor}.most"
            claims += share_claims(keys, text, mean, most, "percentile, by question", "inputs")
            for term in terms:
                frames[term], said = said_of(result, rows, term, changed(term, kind))
                claims += said
            drawn[f"{name[:1].upper()}{name[1:]}"] = panels(frames, kind)
    if not drawn:
        raise lacking(study, f"factors of your own that can be judged ({'; '.join(notes)})")
    found = Finding.of(
        result, script="own_factors", title=TITLE, paper=PAPER, claims=tuple(claims), facts=facts_of(study),
        reading="Each dot is how much more an input steers with that level of the factor, or with one unit more of it, "
        f"{fixed}. Inputs differ in more than what was recorded: an effect is a difference between kinds of inputs, "
        "and need not be caused by the factor. A sure effect can have a small share of all the variance.",
        bars=BARS, counted=f"{datasets_of(len(set(rows['dataset'])), rows['n'], 'inputs')}.", seed=current_seed(),
        alt=f"Effects of {' and '.join(map(in_words, own))} on steerability, by dataset.",
        **of_slopes(result, notes, claims), pages=tuple(drawn) * (len(drawn) > 1),
    )  # fmt: skip
    return publish(out, found, list(drawn.values()), rows)


if __name__ == "__main__":
    command_line(main, __doc__)
