"""What the columns of the frames are called, which array each comes from, and whether every cache holds it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a frame.

    Parameters
    ----------
    name : str
        Column name.
    source : str
        Array of the cache it is read from; "" where it is computed or comes from the unit's attributes.
    dtype : str
        pandas type: `str`, `float64`, `int64`, `boolean` (with missing values: the factor does not apply).
    required : bool
        Whether every cache holds it.
    doc : str
    """

    name: str
    source: str
    dtype: str
    required: bool
    doc: str = ""


def _columns(text: str) -> tuple[Column, ...]:
    rows = []
    for line in text.strip().splitlines():
        name, source, dtype, required, doc = (cell.strip() for cell in line.split("|"))
        rows.append(Column(name, source, dtype, required == "must", doc))
    return tuple(rows)


INPUT_COLUMNS = _columns("""
dataset | | str | must | name of the unit
input | input | str | must | id of the input
question | input_question | str | must | unit of resampling; counterbalanced twins share it
split | input_split | str | may | test or val
row | input_row | int64 | may | row of the source file, from 0
twin | input_twin | int64 | may | 1 for the counterbalanced twin
pos_is_a | input_pos_is_a | boolean | may | the positive option is A; missing where not defined
pos_is_yes | input_pos_is_yes | boolean | may | the positive option is Yes; missing where it is neither
len_positive | input_len_positive | int64 | may | characters of the positive option
len_negative | input_len_negative | int64 | may | characters of the negative option
positive | input_positive | str | may | positive completion
negative | input_negative | str | may | negative completion
option_positive | input_option_positive | str | may | text of the positive option
option_negative | input_option_negative | str | may | text of the negative option
text | input_text | str | may | the user's turn; untrusted text
""")

PAIR_COLUMNS = _columns("""
dataset | | str | must | name of the unit
pair | pair | str | must | id of the training pair
question | pair_question | str | may | hash of the question
pos_is_a | pair_pos_is_a | boolean | may | the positive option is A
pos_is_yes | pair_pos_is_yes | boolean | may | the positive option is Yes
len_positive | pair_len_positive | int64 | may | characters of the positive option
len_negative | pair_len_negative | int64 | may | characters of the negative option
row | pair_row | int64 | may | row of the source file, from 0
""")

VECTOR_COLUMNS = _columns("""
dataset | | str | must | name of the unit
vector | vector | str | must | label
kind | vector_kind | str | must | trained, mean, resampled, fold, random, shuffled, debiased or imported
setting_train | vector_setting | str | must | training setting
replicate | vector_replicate | int64 | must | -1 for main vectors and debiased ones
method | vector_method | str | may | extraction method
norm | vector_norm | float64 | may | as applied at multiplier 1
raw_norm | vector_raw_norm | float64 | may | before rescaling
unembedding_cosine | vector_unembedding_cosine | float64 | may | with the unembedding of answer A minus answer B
layers | vector_layer | str | may | steered layers, joined by "+"
""")

PROPENSITY_COLUMNS = _columns("""
dataset | | str | must | name of the unit
setting_eval | setting_eval | str | must | setting of evaluation
vector | vector | str | must | label
setting_train | vector_setting | str | must | training setting
multiplier | multiplier | float64 | must |
input | input | str | must | id of the input
question | input_question | str | must | unit of resampling
propensity | propensity | float64 | must | nats
probability | propensity | float64 | may | of the positive option among the options, 1 / (1 + exp(-propensity))
logit_positive | answer_logit | float64 | may | nats
logit_negative | answer_logit | float64 | may | nats; of the first wrong answer, where there are several
logsumexp | logsumexp | float64 | may | nats, over the vocabulary
answer_mass | logsumexp | float64 | may | probability of all answers together
""")

SLOPE_COLUMNS = _columns("""
dataset | | str | must | name of the unit
setting_train | vector_setting | str | must | training setting
setting_eval | setting_eval | str | must | setting of evaluation
vector | vector | str | must | label
input | input | str | must | id of the input
question | input_question | str | must | unit of resampling
slope | | float64 | must | steerability, nats per unit multiplier
intercept | | float64 | must | height of the line at 0, nats
unsteered | | float64 | must | propensity at multiplier 0, nats; missing under ablate_add, whose 0 is ablated
r_squared | | float64 | must | missing where the curve is constant
rmse | | float64 | must | nats
curvature | | float64 | must | nats per squared unit multiplier; missing with two multipliers
monotonicity | | float64 | must | 1 rising throughout, -1 falling
split | input_split | str | may | test or val
pos_is_a | input_pos_is_a | boolean | may | the positive option is A
pos_is_yes | input_pos_is_yes | boolean | may | the positive option is Yes
""")
