"""The vector is itself an estimate: what its sampling error adds to the intervals, and to the spread of the inputs."""

import numpy as np

from analyses._cache import ask, facts_of, mean_over_datasets, need_controls, study_of
from analyses._claim import Claim, Finding, command_line, publish
from steerstats import figures

TITLE = "Sampling error of the vector itself"
PAPER = ""


def main(cache, out):
    """Intervals of mean steerability without and with the vector's error, and the reliability of slopes."""
    study = study_of(cache)
    need_controls(study, "resampled")
    result = ask(study, "steerability")
    table = result.to_frame().set_index(["name", "dataset"])
    inner, outer = table.loc["mean"], table.loc["mean, vector error included"]
    frame = inner[["estimate", "ci_low", "ci_high", "n"]].rename(
        columns={"ci_low": "inner_low", "ci_high": "inner_high"}
    )
    frame["outer_low"], frame["outer_high"] = outer["ci_low"], outer["ci_high"]
    frame["times_wider"] = (frame["outer_high"] - frame["outer_low"]) / (frame["inner_high"] - frame["inner_low"])
    wider = mean_over_datasets(frame["times_wider"], "times wider", bounds=(0.0, np.inf))
    reliable = ask(study, "reliability").to_frame()
    bounds = (0.0, 1.0) if (reliable["estimate"] > 0).all() else (-np.inf, np.inf)
    share = mean_over_datasets(reliable["estimate"], "reliability", "share", bounds=bounds)
    claims = (
        Claim.of("vector_error.wider", "The interval of mean steerability grows by this factor when the vector's own "
                 "error is counted, mean over datasets:", wider, "datasets"),
        Claim.of("vector_error.reliability", "Share of the spread of slopes that is a difference between inputs and "
                 "not between refits, mean over datasets:", share, "datasets"),
    )  # fmt: skip
    frame = frame.reset_index()
    with figures.style():
        figure, ax = figures.canvas(width=7.0, height=1.3 + 0.25 * len(frame))
        figures.two_intervals(frame, ax=ax, xlabel="mean steerability (nat per unit multiplier)",
                              names=("inputs only", "inputs and vector"))  # fmt: skip
        figures.key_outside(figure, ax, columns=2)
    refits = int(reliable["n_replicates"].min())
    found = Finding(
        script="vector_sampling_error", title=TITLE, paper=PAPER, claims=claims,
        reading="The thick bar is the interval of mean steerability if this very vector is all that matters; the thin "
        "one is what holds for another vector made from as many training pairs. Where they differ much, more test "
        "inputs will not help.",
        bars="95% t intervals over questions; thin bars add the variance of the mean over refits (Satterthwaite).",
        counted=f"{len(frame)} datasets, {refits} refits on bootstrap resamples of the training pairs each.",
        alt=f"Mean steerability of {len(frame)} datasets with two intervals each; with the vector's error they are "
        f"{wider.estimate:.1f} times as wide on average.",
        method=f"{next(iter(result.vector_error.values())).method}; reliability: {ask(study, 'reliability').method}",
        assumptions=ask(study, "reliability").assumptions, warnings=ask(study, "reliability").warnings,
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame.join(reliable.set_index("dataset")[["sd_true", "sd_noise"]], on="dataset"))


if __name__ == "__main__":
    command_line(main, __doc__)
