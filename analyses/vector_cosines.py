"""Are the vectors of different prompts the same vector? Cosines between settings, beside those with their refits."""

import numpy as np

from analyses._cache import ask, each_of, facts_of, need_array, plain_mean, study_of, vectors_of_kind
from analyses._claim import Claim, Finding, NotInCache, command_line, publish
from analyses._words import listed
from steerstats import figures

TITLE = "Cosine similarity between the vectors of different settings"
PAPER = "similarity of vectors"
# A refit adds to the vector an error as large as the one that it holds already: 1 / sqrt(2).
NOISE = "mean differences of pure noise would show about 0.71"


def main(cache, out):
    """Mean cosine over datasets for every pair of training settings, and the cosine of a vector with its refits."""
    study = study_of(cache)
    need_array(study, "direction", "the directions of the vectors")
    trained = vectors_of_kind(study, "trained")
    if len(trained) < 2:
        raise NotInCache(f"built with vectors of {', '.join(trained) or 'no setting'} only")
    result = ask(study, "vector_cosines")
    frame = result.to_frame()
    across = frame[frame[["vector_a", "vector_b"]].isin(trained).all(axis=1)]
    own = across.groupby("dataset", sort=False)["cosine"].mean()
    each = plain_mean(own, "cosine between settings", bounds=(-1.0, 1.0))
    text, end = "Cosine between the vectors of two settings", "" if len(own) > 1 else f", in {own.index[0]}"
    claims = [Claim.over_datasets("cosines.settings", text, each, over="pairs", end=end)]
    if np.isfinite(result.stability).any():
        own = plain_mean(np.nanmean(result.stability[..., 1], axis=1), "with refits", bounds=(-1.0, 1.0))
        text = f"Cosine of a vector with its own refits on resampled pairs (median; {NOISE})"
        claims.append(Claim.over_datasets("cosines.refits", text, own, end=end))
    rest = listed([name for name in result.vectors if name not in trained])
    with figures.style():
        figure, ax = figures.canvas(width=5.6, height=3.6)
        figures.cosine_table(np.nanmean(result.cosine, axis=0), result.vectors, ax=ax)
    found = Finding.of(
        result, script="vector_cosines", title=TITLE, paper=PAPER, claims=tuple(claims),
        reading="Each cell is the cosine between the vectors of two training settings, averaged over datasets: 1 is "
        f"the same direction. {f'Not counted above: {rest}, which no single setting trained. ' * bool(rest)}"
        "Vectors of two settings are fitted to the same pairs and share sampling error, which draws them together: a "
        "high cosine, even above that of a vector with its refits, is no proof that the directions behind them are "
        "alike.",
        bars="none: cosines describe these very vectors. The table has the quantiles over refits.",
        counted=f"{len(result.vectors)} vectors in {each_of(len(result.datasets))}.",
        alt=f"Table of cosines between the vectors of {', '.join(result.vectors)}; {claims[0].shown[0]} on average "
        "between two settings.",
        facts=facts_of(study),
    )  # fmt: skip
    return publish(out, found, figure, frame)


if __name__ == "__main__":
    command_line(main, __doc__)
