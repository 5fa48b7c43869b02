"""Vectors of one's own: what each does to the inputs, and whether it steers more than the base vector fitted here."""

from analyses._cache import current_seed, datasets_of, facts_of, study_of
from analyses._claim import Finding, command_line, publish, short
from analyses._own_vectors import (
    RESAMPLES,
    cell_warnings,
    claims_of,
    length_notes,
    method_of,
    own_cells,
    panels,
    table_of,
)
from analyses._words import listed
from steerstats import figures
from steerstats.operators import ABLATE

TITLE = "Vectors of your own beside the base vector"
PAPER = ""


def main(cache, out):
    """Mean steerability and anti-steerable share of every imported vector, and its difference to the base vector."""
    study = study_of(cache)
    cells, absent = own_cells(study)
    rows = table_of(cells, study)
    claims = [claim for cell in cells for claim in claims_of(cell)]
    vectors = list(dict.fromkeys(cell.vector for cell in cells))
    with figures.style():
        drawn = [panels([cell for cell in cells if cell.vector == vector]) for vector in vectors]
    assumptions = tuple(text for text in cells[0].own.assumptions if "fourth moment" not in text)  # that is of the SD
    wrong = "whose propensity falls as it is taken out" if ABLATE in study.operators else "steered the wrong way"
    found = Finding.of(
        cells[0].own, script="own_vectors", title=TITLE, paper=PAPER, claims=tuple(claims), method=method_of(cells[0]),
        reading="Marks of one row are of one dataset: mean steerability under a vector of yours and under the base "
        "vector that was fitted here, in the same setting and on the same inputs. Last panel: the share of inputs "
        f"{wrong}; the broken line is one half. Every vector is taken as given: no interval here says how much another "
        "draw of training data would change it, nor includes the base vector's own error.",
        bars="95% t intervals of means and Wilson intervals of shares, by question. Those of differences (in the table "
        "and above) are paired by input: two bars that overlap can still differ.",
        assumptions=assumptions,
        counted=f"{datasets_of(len(study.datasets), rows['n'])}.",
        alt=f"Mean steerability under {listed(vectors)} and under the base vector in "
        f"{datasets_of(len(study.datasets))}; under {cells[0].shift}, {short(claims[0])}.",
        seed=current_seed(), facts=facts_of(study), absent=tuple(absent), pages=tuple(vectors) * (len(vectors) > 1),
        numbers={"n_resamples": RESAMPLES},
        warnings=(*length_notes(rows, study), *cell_warnings(cells)),
    )  # fmt: skip
    return publish(out, found, drawn, rows)


if __name__ == "__main__":
    command_line(main, __doc__)
