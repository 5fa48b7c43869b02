"""Numbers for people, the same on the page, in a figure, in a table and on a terminal."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial

import numpy as np

from steerstats.figures.theme import nice_setting, nice_shift
from steerstats.nulls import CANNOT_RESOLVE, DIFFERS, NAMES, NOT_SHOWN
from steerstats.spurious.rare import NEITHER
from steerstats.text import LARGE, decimals

MOST_DIGITS = 4
DECISIONS = {DIFFERS: "differ", NOT_SHOWN: "not shown to differ", CANNOT_RESOLVE: "cannot be resolved"}
UNDEFINED = f"[{NEITHER}]"  # ends the name of the column of inputs for which a factor is not defined
_SHIFT = re.compile(r"\b(\w+)\s*->\s*(\w+)\b")
_MINUS = re.compile(r"(?<![\w.)\]−-])-(?=\d)")
_CODE = re.compile(
    r"\bpos_is_(?:a|yes)\[neither\]|\b(?:pos_is_a|pos_is_yes|sys_pos|sys_neg|user_pos|user_neg"
    r"|mean_cosine|d_prime|auc|norm_ratio|unembedding_alignment)\b"
)
_OWN = re.compile(r"factor_([^=]+)(?:=(.+) vs (.+))?")  # a factor of the user's own, or two levels of one
# What follows the name of a factor of the user's own.
_ENDS = r" on (?:steer|the un)| of (?:slope|unsteered)\b| (?:is|has|varies|and|\()|[,;:]|$"
_OWN_CODE = re.compile(rf"\bfactor_[\w.-]+?(?:=.+? vs .+?)?(?:\[neither\])?(?={_ENDS})")
_SETTING = {name: nice_setting(name) for name in ("sys_pos", "sys_neg", "user_pos", "user_neg")}
_ARROW = re.compile(r"\s*(?:->|→)\s*")
_RANGE = re.compile(r"(?<![\w.-])(\d+)-(\d+)(?=%| (?:questions|inputs|datasets)\b)")
_TWO_NAMES = re.compile(r"\b(Bell|Benjamini|Hartung|Romano|Yeo)-(McCaffrey|Hochberg|Knapp|Wolf|Johnson)\b")


# What stands in tables for the names of code.
VALUES = {
    "anti_steerable": "anti-steerable (slope < −error)",
    "within_error": "within numerical error of zero",
    "published_nonpositive": "slope ≤ 0, as published",
    "sd": "SD over inputs",
    "shapley_adjusted_r2": "order-free (Shapley, adjusted R²)",
    "published_sequential": "as published (sequential R²)",
    "unconstrained S/(N-p)": "model-based",
    "HC2, Bell-McCaffrey df": "HC2, Bell–McCaffrey",
    "CR2, Bell-McCaffrey df": "CR2, Bell–McCaffrey",
    "pos_is_a": "A rather than B",
    "pos_is_yes": "Yes rather than No",
    "pos_is_a[neither]": "neither A nor B (against their middle)",
    "pos_is_yes[neither]": "neither Yes nor No (against their middle)",
    "pos_is_a alone": "A rather than B alone",
    "pos_is_yes alone": "Yes rather than No alone",
    "pos_is_yes after pos_is_a": "Yes rather than No, after A rather than B",
    "pos_is_a:pos_is_yes": "their interaction",
    "per-input": "per-input regression",
    "mixed": "mixed model",
    "unsteered": "unsteered propensity",
    "prompt": "by the prompt",
    "transfer": "by transfer",
    "gap": "loss",
    "m(0)": "unsteered propensity m(0)",
    **NAMES,
    "mean_cosine": "cosine agreement",
    "d_prime": "held-out d′",
    "auc": "held-out AUC",
    "norm_ratio": "norm ratio",
    "unembedding_alignment": "alignment with A − B",
}
HEADS = {
    "ci_low": "low",
    "ci_high": "high",
    "inputs_10_percent": "10% of inputs below",
    "inputs_90_percent": "90% of inputs below",
    "q10": "10% quantile",
    "q25": "lower quartile",
    "q75": "upper quartile",
    "q90": "90% quantile",
    "t_squared": "Hotelling's T²",
    "f_statistic": "F",
    "df_num": "df above",
    "df_den": "df below",
    "df": "df",
    "p": "p",
    "p_value": "p",
    "p_fdr": "p (FDR)",
    "p_adjusted": "p, adjusted",
    "pos_is_a": "letter",
    "pos_is_yes": "word",
    "cell": "kind",
    "se": "SE",
    "sd": "SD",
    "se_type": "standard error",
    "rho": "Spearman",
    "n_questions": "questions",
    "n_inputs": "inputs",
    "n_datasets": "datasets",
    "n_excluded": "left out",
    "n_points": "pairs",
    "band_low": "band low",
    "band_high": "band high",
    "anti_low": "anti low",
    "anti_high": "anti high",
    "includes_vector_error": "vector error in it",
    "correlation_with_whole": "correlation with all",
    "share_other_sign": "other sign",
    "rms_departure": "RMS departure (nat)",
    "nonlinear_share": "non-linear share",
    "null_abs_quantile": "95% of null |means| below",
    "n_null": "null vectors",
    "n_null_needed": "null vectors needed",
    "p_family": "p, family-wise",
    "variance_id": "variance, base → base",
    "variance_ood": "variance, shift",
    "vector_a": "vector",
    "vector_b": "and vector",
}


def in_words(value: str) -> str:
    """A value or a shift of a table as people say it.

    Examples
    --------
    >>> in_words("base->user_neg"), in_words("factor_topic=law vs art"), in_words("factor_seen[neither]")
    ('base → user (negative)', 'topic: law rather than art', 'seen: not recorded')
    """
    own = _OWN.fullmatch(value.removesuffix(UNDEFINED))
    if own and value.endswith(UNDEFINED):
        return f"{own[1]}: not recorded"
    if own:
        return f"{own[1]}: {own[2]} rather than {own[3]}" if own[2] else own[1]
    return VALUES.get(value) or _SETTING.get(value) or tidy(value)


def listed(parts: Sequence[str]) -> str:
    """Parts as a sentence lists them.

    Examples
    --------
    >>> listed(["a"]), listed(["a", "b"]), listed(["a", "b", "c"])
    ('a', 'a and b', 'a, b and c')
    """
    return " and ".join(filter(None, [", ".join(parts[:-1]), *parts[-1:]]))


def heading(name: str) -> str:
    """The heading of a table's column as people say it."""
    return HEADS.get(str(name)) or str(name).replace("_", " ")


def number(value: float, digits: int = 3, beside: float = 0.0) -> str:
    """Three digits after the point and a real minus sign; more where a small number would read 0, then powers of ten.

    Large numbers, and those `beside` a large one, have fewer, as everywhere: `steerstats.text.decimals`.

    Examples
    --------
    >>> number(-0.26), number(-3.81e-4), number(0), number(-3.98e-5), number(1.2e-19), number(-80998.83)
    ('−0.260', '−0.0004', '0.000', '−4.0e−5', '1.2e−19', '−80999')
    """
    value = float(value)
    if np.isnan(value):
        return "not known"
    if np.isinf(value):
        return "∞" if value > 0 else "−∞"
    if abs(value) >= LARGE:
        return f"{value:.2e}".replace("-", "−")
    if 0 < abs(value) < 10.0**-MOST_DIGITS / 2:
        mantissa, _, power = f"{value:.1e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    if 0 < abs(value) < 10.0**-digits / 2:
        digits = MOST_DIGITS
    return _signed(f"{value:.{decimals(max(abs(value), beside), digits)}f}")


def percent(value: float, digits: int | None = None) -> str:
    """17%, a share for people; one digit more where it would read 0% or 100% and is neither.

    Examples
    --------
    >>> percent(0.173), percent(0.996), percent(0.99, 2)
    ('17%', '99.6%', '99.00%')
    """
    if not np.isfinite(value):
        return "not known"
    if digits is None:
        digits = 1 if 0 < abs(value) < 0.01 or 0.99 < value < 1 else 0
    return f"{_signed(f'{100 * value:.{digits}f}')}%"


def p_words(p: float, kind: str = "") -> str:
    """ "p = 0.03", and never a p of exactly 0 or 1; with too few units to permute there is none."""
    if math.isnan(p):
        return f"no {kind}p-value"
    return kind + ("p > 0.99" if p > 0.99 else "p < 0.001" if p < 0.001 else f"p = {p:.2g}")


def together(values: Sequence[float], unit: str = "1") -> list[str]:
    """An estimate and its limits with enough digits that different numbers read differently.

    Examples
    --------
    >>> together([0.9931, 0.9912, 0.9944], "share")
    ['99.3%', '99.1%', '99.4%']
    >>> together([0.17, 0.04, 0.31], "share"), together([0.03, 0.009, 0.11], "share")
    (['17%', '4%', '31%'], ['3.0%', '0.9%', '11.0%'])
    >>> together([3053.2, -24.361, 5664.1])
    ['3053', '−24', '5664']
    """
    values = [float(value) for value in values]
    known = {value for value in values if np.isfinite(value)}
    if unit == "share":
        least = int(any("." in percent(value) for value in values))  # one precision for all three
        ways = [partial(percent, digits=digits) for digits in range(least, 3)]
    else:
        largest = max(map(abs, known), default=0.0)
        ways = [partial(number, digits=digits, beside=largest) for digits in range(3, MOST_DIGITS + 1)]
    # Where numbers read alike to the last digit worth showing, more digits would not help.
    telling = (way for way in ways if len(set(map(way, known))) == len(known))
    return list(map(next(telling, ways[0]), values))


def tidy(text: str) -> str:
    """A method's own words, with signs and names in place of code.

    Examples
    --------
    >>> tidy("base->user_neg, n >= 2; Hartung-Knapp t(D-1), 6-10% at 5%")
    'base → user (negative), n ≥ 2; Hartung–Knapp t(D − 1), 6–10% at 5%'
    """
    text = _TWO_NAMES.sub(
        r"\1–\2", _RANGE.sub(r"\1–\2", text.replace("t(D-1)", "t(D − 1)").replace("t(D - 1)", "t(D − 1)"))
    )
    text = text.replace("includes_vector_error", f'"{HEADS["includes_vector_error"]}"')
    text = _SHIFT.sub(lambda found: nice_shift(found[1], found[2]), text)
    for code, sign in ((">=", "≥"), ("<=", "≤")):
        text = text.replace(code, sign)
    return _MINUS.sub("−", _ARROW.sub(" → ", text))


def plain_codes(text: str) -> str:
    """`tidy`, with the names of factors, settings and predictors in words as well: for warnings, which name them."""
    return _CODE.sub(lambda found: in_words(found[0]), _OWN_CODE.sub(lambda found: in_words(found[0]), tidy(text)))


def _signed(text: str) -> str:
    """A real minus sign, and none before nothing."""
    return text.lstrip("-") if float(text) == 0 else text.replace("-", "−")
