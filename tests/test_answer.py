"""What the summary says of a shift: losses, gains, and vectors that steer the wrong way."""

from analyses._claim import Claim
from reports.answer import _in_brackets, _loss, limits


def test_a_loss_is_told_with_what_the_prompt_and_what_transfer_cost():
    shared = {"statement": "", "interval": "t", "n": 9, "n_of": "datasets"}

    def claim(key, low, estimate, high):
        return Claim(key=key, estimate=estimate, ci_low=low, ci_high=high, **shared)

    claims = [claim("per_input.mean", 0.1, 0.2, 0.3), claim("prompt.user_neg", 0.02, 0.062, 0.1)]
    claims += [
        claim("transfer.sys_pos->user_neg", -0.02, 0.015, 0.05),
        claim("gap.sys_pos->user_neg", 0.03, 0.076, 0.12),
    ]
    assert _loss({one.key: one for one in claims}) == (
        "Under the prompt user (negative), the system (positive) vector steers 0.076 less than the base vector at "
        "home (0.030 to 0.120): 0.062 (0.020 to 0.100) due to the prompt and 0.015 (−0.020 to 0.050, not shown to "
        "differ from 0) due to transfer."
    )
    home = [claims[0], claim("gap.base->user_neg", -0.2, -0.1, -0.05)]
    assert _loss({one.key: one for one in home}) == (
        "Under the prompt user (negative), the vector steers 0.100 more than at home (0.050 to 0.200)."
    )


def test_a_gain_is_told_with_parts_of_its_own_sign_and_of_a_vector_that_steers_the_wrong_way_as_steerability():
    shared = {"statement": "", "interval": "t", "n": 9, "n_of": "datasets"}

    def told(low, *rows):
        claims = [Claim(key="per_input.mean", estimate=low + 0.1, ci_low=low, ci_high=low + 0.2, **shared)]
        claims += [
            Claim(key=key, estimate=middle, ci_low=middle - 0.05, ci_high=middle + 0.05, **shared)
            for key, middle in rows
        ]
        return _loss({one.key: one for one in claims})

    shift = "sys_pos->user_neg"
    gain = ((f"gap.{shift}", -0.3), ("prompt.user_neg", -0.32), (f"transfer.{shift}", 0.02))
    parts = "0.320 (0.270 to 0.370) due to the prompt and −0.020 (−0.070 to 0.030, not shown to differ from 0) due to "
    parts += "transfer."
    assert told(0.3, *gain) == (
        "Under the prompt user (negative), the system (positive) vector steers 0.300 more than the base vector at "
        f"home (0.250 to 0.350): {parts}"
    )
    # From -0.9 to -0.6: the vector moves answers less, in the direction that is not wanted.
    assert told(-1.0, *gain) == (
        "Under the prompt user (negative), the mean steerability of the system (positive) vector is 0.300 higher than "
        f"that of the base vector at home (0.250 to 0.350): {parts}"
    )
    assert told(-1.0, ("gap.base->user_neg", 0.2)).endswith(
        "the mean steerability of the vector is 0.200 lower than at home (0.150 to 0.250)."
    )
    assert told(-1.0, ("gap.base->user_neg", 0.01)).endswith("of the vector is not shown to be lower than at home.")


def test_limits_that_read_alike_are_said_to_be_too_narrow():
    claim = Claim(
        key="k", statement="", estimate=0.277, ci_low=0.277, ci_high=0.277, interval="t", n=9, n_of="datasets"
    )
    assert limits(claim) == "95% interval too narrow to show"
    assert _in_brackets(claim) == " (too narrow to show)"


NAN = float("nan")


def said(*rows) -> str:
    """The sentence on claims of (key, low, estimate, high, facts)."""
    shared = {"statement": "", "interval": "t", "n": 9, "n_of": "datasets"}
    claims = [
        Claim(key=key, ci_low=low, estimate=estimate, ci_high=high, facts=dict(facts), **shared)
        for key, low, estimate, high, *facts in rows
    ]
    return _loss({one.key: one for one in claims})


def test_nothing_is_lost_where_nothing_is_shown_to_steer_and_no_loss_is_shown_without_limits():
    gap = ("gap.base->user_neg", 0.1, 0.2, 0.3)
    assert said(("per_input.mean", -0.1, 0.1, 0.3), gap) == ""
    assert said(("per_input.mean", -0.3, -0.2, -0.1), gap), "vectors that steer the wrong way are shown to do so"
    steering = ("per_input.mean", 0.1, 0.2, 0.3)
    open_ = "Under the prompt user (negative), the vector is not shown to steer less than at home."
    assert said(steering, ("gap.base->user_neg", NAN, 0.2, NAN)) == open_
    assert said(steering, ("gap.base->user_neg", -0.01, 0.2, 0.3)) == open_


def test_parts_of_a_loss_are_said_to_be_of_these_vectors_where_the_loss_is_of_others_too():
    own, others = ("vector_error", False), ("vector_error", True)
    rows = [("per_input.mean", 0.1, 0.2, 0.3), ("gap.base->user_neg", 0.1, 0.2, 0.3, others)]
    rows.append(("prompt.user_neg", 0.1, 0.15, 0.2, own))
    told = said(*rows, ("transfer.base->user_neg", -0.1, 0.05, 0.2, own))
    assert told.endswith(
        ": 0.150 (0.100 to 0.200, for these very vectors) due to the prompt and 0.050 (−0.100 to 0.200, for these very "
        "vectors, not shown to differ from 0) due to transfer."
    )
    told = said(*rows, ("transfer.base->user_neg", -0.1, 0.05, 0.2, others))
    assert told.endswith("and 0.050 (−0.100 to 0.200, not shown to differ from 0) due to transfer.")
    assert said(*rows).endswith("0.200 less than at home (0.100 to 0.300).")  # one part of two says of neither
