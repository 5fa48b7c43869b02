"""Would a vector that knows nothing do the same? Random directions and label-shuffled vectors of the same norm."""

from analyses._cache import ask, by_dataset, datasets_of, facts_of, need_controls, order_by_median, study_of
from analyses._claim import Claim, Finding, command_line, publish
from analyses._words import DECISIONS
from steerstats import figures
from steerstats.nulls import CANNOT_RESOLVE, NAMES

TITLE = "The vectors against vectors that know nothing"
PAPER = ""


def main(cache, out):
    """Mean steerability against each null, with a false discovery rate over datasets."""
    study = study_of(cache)
    need_controls(study, "random", "shuffled")
    result = ask(study, "nulls")
    order = order_by_median(study)
    tables = {kind: table for kind in NAMES if (table := getattr(result, kind)) is not None}
    frame = result.to_frame()
    claims = []
    for kind, table in tables.items():
        counts = {words: table.decision.count(decision) for decision, words in DECISIONS.items()}
        text = f"Datasets by whether their vector differs from {NAMES[kind]}, false discovery rate {table.alpha:g}"
        if counts[DECISIONS[CANNOT_RESOLVE]]:
            text += f" ({table.n_null.min()} null vectors are too few, {table.n_null_needed} are needed)"
        facts = {"n_null": int(table.n_null.min()), "n_null_needed": table.n_null_needed}
        claims.append(
            Claim.counted(f"null.{kind}", f"{text}:", counts, "datasets", "a count of decisions", facts=facts)
        )
        if table.more_together:
            text = f"Datasets whose vector differs from {NAMES[kind]}, all taken together:"
            counts = {"differ at least": table.at_least, "may differ or not": len(table.datasets) - table.at_least}
            why = f"a lower limit with {1 - table.alpha:.0%} confidence, by partial conjunctions"
            claims.append(Claim.counted(f"null.{kind}_together", text, counts, "datasets", why))
    shown = next(iter(tables))
    rows = by_dataset(frame[frame["kind"] == shown], order)
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, width=8.6, height=1.4 + 0.27 * len(rows), width_ratios=[1.6, 1])
        figures.against_null(by_dataset(frame, order), ax=left)
        figures.null_share(rows, ax=right)
        figures.key_outside(figure, left, right)
    found = Finding.of(
        result, script="null_vectors", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Left: the dot is the dataset's own vector; a dot inside a bar lies where 95% of null vectors lie. "
        "Right: the share of anti-steerable inputs, here every input with a slope below 0, beside the shares under "
        "null vectors; a single random vector can show nearly any share, so one half is not the mark to beat.",
        bars="left: 95% of null vectors have a mean within the bar (a quantile, not a confidence interval). Right: the "
        f"middle 95% over {NAMES[shown]}.",
        counted=f"{datasets_of(len(rows))}; "
        + "; ".join(f"{table.n_null.min()} {NAMES[kind]}" for kind, table in tables.items()) + ".",
        alt=f"Mean steerability of {len(rows)} vectors beside the range of {' and '.join(NAMES[k] for k in tables)}.",
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
