"""Does steerability depend on how far the vector is pushed? The slope again, on narrower ranges of the multiplier."""

import numpy as np

from analyses._cache import ask, datasets_of, facts_of, study_of
from analyses._claim import Finding, NotInCache, command_line, publish
from analyses._curves import part_whole, range_claims
from steerstats import figures

TITLE = "Sensitivity to the multiplier range"
PAPER = "appendix: choice of multipliers"


def main(cache, out):
    """Mean steerability of every dataset on |λ| ≤ c, for every c of the grid."""
    study = study_of(cache)
    result = ask(study, "multiplier_range")
    frame = result.to_frame().rename(columns={"mean": "estimate"})
    # The whole grid set against itself agrees perfectly, and is no finding.
    part = frame[frame["range"] < frame.groupby("dataset")["range"].transform("max")]
    if part.empty:
        raise NotInCache("multipliers of more than one size, so there is no narrower range to compare")
    inner, n = part[part["range"] == (narrow := part["range"].min())], frame["dataset"].nunique()
    floor = np.mean([part_whole(study.units[name].multipliers, narrow) for name in inner["dataset"]])
    whole = sorted(set(frame.groupby("dataset")["range"].max()))  # a table's datasets may have grids of their own
    whole = f"|λ| ≤ {whole[0]:g}" + (f" to {whole[-1]:g}" if len(whole) > 1 else "")
    claims, other = range_claims(study, inner, narrow)
    with figures.style():
        figure, (left, right) = figures.canvas(1, 2, width=8.2, height=3.2)
        figures.range_sensitivity(
            frame, ax=left, value="estimate", ylabel="mean steerability\n(nat per unit multiplier)"
        )
        figures.range_sensitivity(
            frame.drop(columns=["ci_low", "ci_high"]), ax=right, value="share_other_sign",
            ylabel="inputs whose slope\nhas the other sign", share=True,
        )  # fmt: skip
        figures.key_outside(figure, left, columns=n)
    found = Finding.of(
        result, script="multiplier_range", title=TITLE, paper=PAPER, claims=claims,
        reading="Each line is a dataset. Left: its mean slope when only multipliers up to the given size are used; a "
        "level line means that the choice of range does not matter. Right: how many inputs change sign against the "
        f"slope over the whole grid ({whole}), where the line reaches 0. "
        f"Slopes on a part and on the whole share their data: those of noise alone would correlate at {floor:.2f}.",
        bars="left: bands are 95% t intervals over questions." if n <= 5 else "none are drawn; the table has 95% t "
        "intervals over questions.",
        counted=f"{datasets_of(n, frame['n'])}.",
        alt=f"Mean steerability and share of sign changes against the width of the multiplier range, "
        f"{datasets_of(n)}. On the narrowest range {other:.0%} of inputs have the other sign on average.",
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
