"""Do the answers keep their probability? Where steering breaks the format, the slope describes nothing."""

from analyses._cache import ask, datasets_of, facts_of, need_array, plain_mean, study_of, with_several_wrong
from analyses._claim import Finding, command_line, publish
from analyses._means import mean_or_own
from analyses._shares import in_range
from steerstats import figures
from steerstats.operators import has_unsteered

TITLE = "Probability left on the two answers"
PAPER = ""
HOW = "t interval over questions, logit scale"


def main(cache, out):
    """Answer mass by multiplier, with datasets flagged where it falls below one half."""
    study = study_of(cache)
    need_array(study, "logsumexp", "the log-sum-exp over the vocabulary")
    need_array(study, "answer_logit", "the logits of the answers")
    result, answers = ask(study, "answer_mass"), "answers" if with_several_wrong(study) else "two answers"
    frame = result.to_frame().rename(columns={"mean": "estimate"})
    flagged = [name for name, bad in zip(result.datasets, result.collapsed) if bad.any()]
    lowest, unsteered = frame.loc[frame.groupby("dataset", sort=False)["estimate"].idxmin()], frame["multiplier"] == 0
    least = plain_mean(lowest["estimate"], "lowest mass", "share")
    rest = plain_mean(frame[unsteered]["estimate"], "mass unsteered", "share")
    acts = not all(map(has_unsteered, study.operators))
    where = "at multiplier 0 (the ablated model)" if acts else "without steering"
    texts = (
        f"Probability on the {answers} {where}",
        f"Probability on the {answers} at the multiplier where it is lowest",
    )
    lost = [name for name, bad in zip(result.datasets, result.collapsed[:, result.multipliers == 0]) if bad.any()]
    steered, how = [name for name in flagged if name not in lost], f"{HOW}; not adjusted for picking the lowest"
    claims = (
        in_range(mean_or_own("mass.unsteered", texts[0], rest, frame[unsteered], HOW, facts={"lost": lost})),
        in_range(mean_or_own("mass.lowest", texts[1], least, lowest, how, facts={"lost": steered})),
    )
    with figures.style():
        figure, ax = figures.canvas(width=5.6, height=3.3)
        figures.mass_curves(frame, ax=ax, collapsed=flagged, answers=answers)
    found = Finding.of(
        result, script="answer_mass", title=TITLE.replace("two answers", answers), paper=PAPER, claims=claims,
        reading=f"Each line is a dataset: the probability that the model's next token is one of the {answers}. "
        f"Datasets whose line falls below {result.threshold:.0%} are flagged"
        + (f" ({', '.join(flagged)})." if flagged else "; there are none."),
        bars="none are drawn; the table has 95% t intervals over questions.",
        counted=f"{datasets_of(len(result.datasets), result.n)}.",
        alt=f"Probability on the {answers} against the multiplier, {len(result.datasets)} lines. It is "
        f"{rest.estimate:.0%} {'at multiplier 0' if acts else 'unsteered'} on average and {least.estimate:.0%} at its "
        f"lowest; {len(flagged)} flagged.",
        method="probability of each answer, exp(its logit − log-sum-exp), summed over "
        f"{'both' if answers == 'two answers' else 'them'}; mean over inputs, {HOW}",
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
