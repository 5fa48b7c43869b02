"""R² and adjusted R² of many resamples at once, from sums over questions.

Adjusted R² takes off what columns explain by chance. Where a question has several inputs that is not p/(n - 1) of
the variance: a factor that differs between questions (Yes or No) explains more by chance, one that differs inside
them (A or B of counterbalanced twins) less, the more so the more twins share.
"""

from __future__ import annotations

import numpy as np

NO_MORE = 1e-9  # of tr M tr BB, which the determinant of the two moments cannot exceed: below it is rounding


class Moments:
    """Centred cross-products of columns and slopes, one set per resample.

    Parameters
    ----------
    sums : ndarray (n_resamples, n_sums)
        Sums over questions of the rows of `question_sums`.
    k : int
        Columns, the intercept first and the slopes last.
    """

    def __init__(self, sums: np.ndarray, k: int) -> None:
        products, *rest = np.moveaxis(sums.reshape(len(sums), -1, k, k), 1, 0)
        self.n = products[:, 0, 0]
        mean = products[:, 0, 1:] / self.n[:, None]
        self.cross = _about(products, mean)
        # What centring leaves of a constant column or of equal slopes is rounding of the uncentred sum.
        raw = np.einsum("bjj->bj", products)[:, 1:]
        spread = np.einsum("bjj->bj", self.cross)
        self.scale = np.where(spread > 1e-12 * raw, np.sqrt(np.maximum(spread, 0)), 0.0)
        self.unit = self._scaled(self.cross)
        self.flat = self.scale[:, -1] == 0
        self.clustered = bool(rest)
        if rest:
            by, heavy = rest
            self.by, self.heavy = self._scaled(_about(by, mean)), self._scaled(_about(heavy, mean))
            self.squares, self.cubes = by[:, 0, 0], heavy[:, 0, 0]  # sums of n_g^2 and of n_g^3
            with np.errstate(divide="ignore", invalid="ignore"):
                first = (by[:, 0, 1:] - mean * self.squares[:, None]) / self.scale
            self.first = np.where(np.isfinite(first), first, 0.0)

    @property
    def variance(self) -> np.ndarray:
        """Of the slopes, ddof = 1."""
        return self.scale[:, -1] ** 2 / (self.n - 1)

    def r2(self, which: list[int]) -> np.ndarray:
        """R² of the regression on some columns (the intercept not counted); NaN where the slopes are all equal."""
        return self._regress(which)[0]

    def adjusted_r2(self, which: list[int]) -> np.ndarray:
        r"""R² less what the columns would explain by chance; NaN where that cannot be told.

        With P the projector on the centred columns, M the residuals', B the matrix of "same question" and errors of
        covariance :math:`\alpha I + \beta B`, columns without effect explain :math:`\alpha\,\mathrm{tr}P +
        \beta\,\mathrm{tr}PB` in the mean. The two unknowns solve the moments of the squared residuals and of their
        sums by question,

            e'e  = α tr M  + β tr MB,
            e'Be = α tr MB + β tr MBMB,

        so that no normality is used. With one input per question B = I, and this is the usual adjusted R².
        """
        r2, root, rank = self._regress(which)
        free = self.n - 1 - rank
        rest = 1 - r2
        with np.errstate(divide="ignore", invalid="ignore"):
            chance = rank * rest / free
            if self.clustered:
                chance = np.where(free > 0, self._chance(which, root, rank, rest), np.nan)
        return np.where(free > 0, r2 - chance, np.nan)

    def _chance(self, which: list[int], root: np.ndarray, rank: np.ndarray, rest: np.ndarray) -> np.ndarray:
        by, n, free = self.by[:, which][:, :, which], self.n, self.n - 1 - rank
        inner = root.transpose(0, 2, 1) @ by @ root
        trace_pb = np.einsum("bii->b", inner)
        trace_pbb = np.einsum("bji,bjl,bli->b", root, self.heavy[:, which][:, :, which], root, optimize=True)
        mixed = np.square(np.einsum("bji,bj->bi", root, self.first[:, which])).sum(axis=1) / n
        within_mean = self.squares / n
        trace_mb = n - within_mean - trace_pb
        trace_mbmb = self.squares - 2 * self.cubes / n - 2 * trace_pbb
        trace_mbmb = trace_mbmb + within_mean**2 + 2 * mixed + np.square(inner).sum(axis=(1, 2))
        slope = np.einsum("bji,bli,bl->bj", root, root, self.unit[:, which, -1], optimize=True)
        together = self.by[:, -1, -1] - 2 * np.einsum("bj,bj->b", slope, self.by[:, which, -1])
        together = together + np.einsum("bj,bjl,bl->b", slope, by, slope)
        det = free * trace_mbmb - trace_mb**2
        told = det > NO_MORE * free * self.squares
        beta = np.where(told, (free * together - trace_mb * rest) / det, 0.0)
        # Where the residuals cannot tell alpha from beta they need not, if the columns see both in the same ratio.
        same = np.abs(trace_pb * free - rank * trace_mb) <= 1e-6 * free * np.maximum(rank, 1)
        alpha = (rest - beta * trace_mb) / free
        return np.where(told | same, alpha * rank + beta * trace_pb, np.nan)

    def _regress(self, which: list[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """R², a root of the inverse cross-products, and the rank."""
        values, vectors = np.linalg.eigh(self.unit[:, which][:, :, which])
        used = values > 1e-9
        root = vectors * np.where(used, 1 / np.sqrt(np.where(used, values, 1.0)), 0.0)[:, None, :]
        r2 = np.square(np.einsum("bji,bj->bi", root, self.unit[:, which, -1])).sum(axis=1)
        return np.where(self.flat, np.nan, np.minimum(r2, 1.0)), root, used.sum(axis=1)

    def _scaled(self, matrix: np.ndarray) -> np.ndarray:
        with np.errstate(divide="ignore", invalid="ignore"):
            unit = matrix / (self.scale[:, :, None] * self.scale[:, None, :])
        return np.where(np.isfinite(unit), unit, 0.0)


def question_sums(columns: np.ndarray, slopes: np.ndarray, codes: np.ndarray, groups: int) -> np.ndarray:
    """What `Moments` sums, one row per question.

    Parameters
    ----------
    columns : ndarray (n, p)
        Intercept first.
    slopes : ndarray (n,)
    codes : ndarray (n,)
        Question of each input, 0 to `groups` - 1.
    groups : int

    Returns
    -------
    ndarray (groups, n_sums)
        Cross-products of rows; where a question has several inputs also those of the questions' sums, and these times
        the question's inputs.
    """
    rows = np.column_stack([columns, slopes - slopes.mean()])
    k = rows.shape[1]
    products, totals = np.zeros((groups, k, k)), np.zeros((groups, k))
    np.add.at(products, codes, rows[:, :, None] * rows[:, None, :])
    if groups == len(codes):
        return products.reshape(groups, -1)
    np.add.at(totals, codes, rows)
    outer = totals[:, :, None] * totals[:, None, :]
    return np.stack([products, outer, outer * totals[:, :1, None]], axis=1).reshape(groups, -1)


def _about(sums: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Cross-products about the means, from those about 0 with the intercept first: its column is taken off."""
    left = sums[:, 0, 1:, None] * mean[:, None, :]
    both = mean[:, :, None] * mean[:, None, :]
    return sums[:, 1:, 1:] - left - left.transpose(0, 2, 1) + sums[:, :1, :1] * both
