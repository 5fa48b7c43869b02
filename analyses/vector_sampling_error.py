"""The vector is itself an estimate: what its sampling error adds to the intervals, and to the spread of the inputs."""

from analyses._cache import ask, datasets_of, facts_of, lacking, need_controls, study_of
from analyses._claim import Finding, command_line, publish
from analyses._means import error_claims, own_warnings
from steerstats import figures

TITLE = "Sampling error of the vector itself"
PAPER = ""


def main(cache, out):
    """Intervals of mean steerability without and with the vector's error, and the reliability of slopes."""
    study = study_of(cache)
    need_controls(study, "resampled")
    if not study.has_refits(["base->base"]):
        raise lacking(study, "two resampled vectors, the fewest that show it")
    result = ask(study, "steerability")
    table = result.to_frame().set_index(["name", "dataset"])
    inner, outer = table.loc["mean"], table.loc["mean, vector error included"]
    frame = inner[["estimate", "ci_low", "ci_high", "n"]].rename(
        columns={"ci_low": "inner_low", "ci_high": "inner_high"}
    )
    frame["outer_low"], frame["outer_high"] = outer["ci_low"], outer["ci_high"]
    frame["times_wider"] = (frame["outer_high"] - frame["outer_low"]) / (frame["inner_high"] - frame["inner_low"])
    frame, reliable = frame.reset_index(), ask(study, "reliability").to_frame()
    claims = error_claims(frame, reliable)
    with figures.style():
        figure, ax = figures.canvas(width=7.0, height=1.3 + 0.25 * len(frame))
        figures.two_intervals(frame, ax=ax, xlabel="mean steerability (nat per unit multiplier)",
                              names=("inputs only", "inputs and vector"))  # fmt: skip
        figures.key_outside(figure, ax, columns=2)
    n, refits = datasets_of(len(frame)), int(reliable["n_replicates"].min())
    found = Finding(
        script="vector_sampling_error", title=TITLE, paper=PAPER, claims=claims,
        reading="The thick bar is the interval of mean steerability if this very vector is all that matters; the thin "
        "one also holds for other vectors made from as many training pairs. Where they differ much, more test inputs "
        "will not help.",
        bars="95% t intervals over questions; thin bars add the variance of the mean over refits (Satterthwaite).",
        counted=f"{n}, {refits} refits on bootstrap resamples of the training questions each.",
        alt=f"Mean steerability of {n} with two intervals each; with the vector's error they are "
        f"{claims[0].estimate:.1f} times as wide on average.",
        method=f"mean over inputs; variance of {refits} refitted vectors plus variance over each dataset's questions; "
        f"Satterthwaite t; reliability: {ask(study, 'reliability').method}",
        assumptions=ask(study, "reliability").assumptions,
        # What the means' own warnings say of the refits holds for the factor too.
        warnings=(*own_warnings(result), *ask(study, "reliability").warnings),
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame.join(reliable.set_index("dataset")[["sd_true", "sd_noise"]], on="dataset"))


if __name__ == "__main__":
    command_line(main, __doc__)
