"""Do these datasets fall into two groups, such as those that do not steer at all and the others?

Draws of true means shrink observed ones by the spread between datasets. Where half of the datasets have true means
next to zero, one normal law for all (transformed or not) takes the spread of the others for theirs, and ranks noise:
intervals for these datasets are then too short, the more so where next to nothing but noise sets the group's datasets
apart. Two normal laws are used instead where they fit clearly better; elsewhere nothing changes.

Both laws, their share and the noise: extreme deconvolution, Bovy, Hogg & Roweis (2011, doi:10.1214/10-AOAS439).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from steerstats.generalization.margins import near_normal

MIN_MEMBERS = 5
RELIABLE = 0.9  # above this share of true variance inside both groups, noise is too small for the law to matter
# Twice the gain in log likelihood by the second law's six parameters. Of simulated studies of 14 and of 40 datasets
# under one normal law, 0-1% passed for two groups, and 0% clearly.
DOUBTFUL, CLEARLY = 18.0, 22.0
STARTS = (0.25, 0.4, 0.5, 0.6, 0.75)
STEPS, LOOK, SETTLED = 150, 10, 1e-3  # at most; how often to look; gain in log likelihood since then that ends it
RIDGE = 1e-6  # of the observed variance; rounding, where a group has no spread beyond noise


@dataclass(frozen=True)
class Groups:
    """Two groups of datasets, each with a normal law of its own.

    Parameters
    ----------
    tight : ndarray of bool, shape (n_datasets,)
        Datasets that more likely belong to the tighter group.
    clear : bool
        Whether two laws fit so much better than one that draws of true means use both; else they leave a doubt.
    """

    tight: np.ndarray
    clear: bool


def two_groups(
    x: np.ndarray, y: np.ndarray, var_x: np.ndarray, var_y: np.ndarray, covariance: np.ndarray
) -> Groups | None:
    """The two groups that datasets fall into, or None where one normal law describes them well enough.

    Parameters
    ----------
    x, y, var_x, var_y, covariance : array of shape (n_datasets,)
        Observed means, the variances of their errors, and the errors' covariance; finite.

    Returns
    -------
    Groups or None
        None also where a group has fewer than five datasets, or noise is too small for its law to matter.

    Examples
    --------
    >>> import numpy as np
    >>> from steerstats.generalization.two_groups import two_groups
    >>> rng = np.random.default_rng(0)
    >>> near = np.arange(40) < 20
    >>> means = np.where(near, 0.02, 0.5) * rng.normal(size=(2, 40)) + np.where(near, 0, 1.5)
    >>> noise = np.full(40, 0.02**2), np.full(40, 0.02**2), np.zeros(40)
    >>> found = two_groups(*means, *noise)
    >>> found.clear, int(found.tight[:20].sum()), int(found.tight[20:].sum())
    (True, 20, 0)
    >>> two_groups(*rng.normal(size=(2, 40)), *(100 * v for v in noise)) is None
    True
    """
    (x, y, *noise), _ = near_normal(x, y, var_x, var_y, covariance)
    return split(np.stack([x, y]), np.stack([noise[0], noise[2], noise[1]]))


def split(seen: np.ndarray, noise: np.ndarray) -> Groups | None:
    """`two_groups` of means that are transformed already: (2, n), with their noise (xx, xy, yy) of shape (3, n)."""
    n, spread = seen.shape[1], seen.std(axis=1)
    if n < 2 * MIN_MEMBERS or not (spread > 0).all() or not noise.any():
        return None
    seen, noise, _, _ = scaled(seen, noise)
    one, _, _ = _fit(seen, noise, np.ones((1, 1, n)))
    two, shares, laws = _fit(seen, noise, _starts(seen))
    best = int(two.argmax())
    gain = 2 * float(two[best] - one[0])
    determinant = laws[0, best] * laws[2, best] - laws[1, best] ** 2
    tight = shares[best, int(determinant.argmin())] > 0.5
    if not gain >= DOUBTFUL or not possible(seen, tight):
        return None
    # A few datasets in a row have a law of their own by chance: it matters where noise hides a group's order.
    within = laws[::2, best]
    if (within > RELIABLE * (within + noise[::2].mean(axis=1)[:, None])).all():
        return None
    return Groups(tight=tight, clear=gain >= CLEARLY)


def scaled(seen: np.ndarray, noise: np.ndarray) -> tuple[np.ndarray, ...]:
    """Means and noise on the scale of the observed spread, so that one grid serves every unit; middle and spread."""
    middle, spread = seen.mean(axis=1, keepdims=True), seen.std(axis=1)
    products = np.array([spread[0] ** 2, spread[0] * spread[1], spread[1] ** 2])[:, None]
    return (seen - middle) / spread[:, None], noise / products, middle, spread[:, None]


def possible(seen: np.ndarray, tight: np.ndarray) -> bool:
    """Whether both groups have enough members, and no group ties on one side, where it would have no law."""
    return all(own.sum() >= MIN_MEMBERS and (np.ptp(seen[:, own], axis=1) > 0).all() for own in (tight, ~tight))


def log_density(off: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Of bivariate normals at (2, ...) deviations with (3, ...) covariances, but for a constant."""
    s11, s12, s22 = total
    determinant = s11 * s22 - s12**2
    square = (s22 * off[0] ** 2 - 2 * s12 * off[0] * off[1] + s11 * off[1] ** 2) / determinant
    return -0.5 * (square + np.log(determinant))


def _starts(seen: np.ndarray) -> np.ndarray:
    """Memberships (starts, 2, n) to begin from: the densest stretches of each side against the rest."""
    n, found = seen.shape[1], []
    for side in seen:
        order = np.argsort(side, kind="stable")
        for share in STARTS:
            m = min(max(int(np.ceil(share * n)), MIN_MEMBERS), n - MIN_MEMBERS)
            first = int((side[order[m - 1 :]] - side[order[: n - m + 1]]).argmin())
            inside = np.zeros(n)
            inside[order[first : first + m]] = 1.0
            found.append(np.stack([inside, 1 - inside]))
    return np.array(found)


def _fit(seen: np.ndarray, noise: np.ndarray, shares: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log likelihood (starts,), memberships (starts, laws, n) and covariances (3, starts, laws) after EM."""
    weight = shares.mean(axis=2)
    mean = shares @ seen.T / shares.sum(axis=2, keepdims=True)  # (starts, laws, 2)
    mean = np.moveaxis(mean, 2, 0)
    law = _second(shares, seen[:, None, None] - mean[..., None], 0.0)
    before = -np.inf
    for step in range(STEPS):
        off = seen[:, None, None] - mean[..., None]
        total = law[..., None] + noise[:, None, None]
        value = np.log(weight)[..., None] + log_density(off, total)
        top = value.max(axis=1, keepdims=True)
        each = np.exp(value - top)
        likelihood = (top[:, 0] + np.log(each.sum(axis=1))).sum(axis=1)
        if step % LOOK == 0:
            if (likelihood - before < SETTLED).all():
                break
            before = likelihood
        shares = each / each.sum(axis=1, keepdims=True)
        weight = np.maximum(shares.mean(axis=2), 1e-9)
        # Gain of each dataset under each law, then moments of its true mean.
        s11, s12, s22 = total
        determinant = s11 * s22 - s12**2
        l11, l12, l22 = law[..., None]
        g11, g12 = (l11 * s22 - l12 * s12) / determinant, (l12 * s11 - l11 * s12) / determinant
        g21, g22 = (l12 * s22 - l22 * s12) / determinant, (l22 * s11 - l12 * s12) / determinant
        moved = np.stack([g11 * off[0] + g12 * off[1], g21 * off[0] + g22 * off[1]])
        left = np.stack([l11 - g11 * l11 - g12 * l12, l12 - g11 * l12 - g12 * l22, l22 - g21 * l12 - g22 * l22])
        shift = (shares * moved).sum(axis=3) / np.maximum(shares.sum(axis=2), 1e-9)
        mean = mean + shift
        law = _second(shares, moved - shift[..., None], left)
    return likelihood, shares, law


def _second(shares: np.ndarray, off: np.ndarray, left: np.ndarray | float) -> np.ndarray:
    products = np.stack([off[0] ** 2, off[0] * off[1], off[1] ** 2]) + left
    law = (shares * products).sum(axis=3) / np.maximum(shares.sum(axis=2), 1e-9)
    return law + np.array([RIDGE, 0.0, RIDGE])[:, None, None]
