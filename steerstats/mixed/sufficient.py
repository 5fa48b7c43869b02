"""Mixed models with one grouping factor, or one nested in another, from per-group cross-products.

Where inputs miss cells, have grids of their own or differ in fixed terms no closed form exists. The likelihood
still needs only Z'Z, Z'X, Z'y per group. Groups with the same Z'Z enter quadratically, so within one outer group
they are replaced by the few rows of a QR factor: 20,000 balanced inputs cost no more than a thousand. The deviance
is profiled over beta and sigma^2 and minimised over the Cholesky factors of Psi/sigma^2 with an analytic gradient.
On rank-deficient Psi that gradient vanishes in directions that may still improve; the derivative with respect to
Psi itself does not, so it is checked there, and a violating eigenvector leads out.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np

from steerstats.errors import CannotEstimate, InputError
from steerstats.mixed.arrays import relative_cholesky
from steerstats.mixed.search import descend, polish


@dataclass(frozen=True, slots=True)
class Level:
    """Random effects of one grouping factor: Z (n, k), codes (n,), and which pairs of effects may correlate."""

    Z: np.ndarray
    codes: np.ndarray
    blocks: np.ndarray  # (k,) integer label; effects of different blocks are independent


@dataclass(frozen=True, slots=True)
class SufficientFit:
    """Estimates of one model: beta (P,), its model covariance (P, P), one Psi (k, k) per level, and how it ended.

    `kkt` is the smallest eigenvalue, per group, of the derivative of the deviance by Psi: about zero or above at
    an optimum.
    """

    beta: np.ndarray
    covariance: np.ndarray
    psi: tuple[np.ndarray, ...]
    relative_diagonal: float
    sigma2: float
    criterion: float
    kkt: float
    gradient: float


def fit_levels(y: np.ndarray, X: np.ndarray, levels: list[Level], *, reml: bool = True) -> SufficientFit:
    """Fit a linear mixed model with one or two nested grouping factors.

    Parameters
    ----------
    y : ndarray, shape (n,)
    X : ndarray, shape (n, P)
        Fixed effects, of full column rank.
    levels : list of Level
        One level, or two with the outer one first.
    reml : bool

    Raises
    ------
    InputError
        If there are more than two levels, or the inner groups are not nested in the outer ones.
    CannotEstimate
        If the fixed and random effects fit the data exactly, so that sigma^2 = 0 and the likelihood is unbounded.
    """
    moments = Moments(y, X, levels, reml)
    moments.check_residual()
    # Columns of Z have unit size here: each effect starts with the residual's variance.
    start = np.concatenate([np.eye(len(mask))[mask] for mask in moments.free])
    theta = polish(moments, descend(moments, start)[0])
    state = moments.evaluate(theta)
    scaled = [factor @ factor.T for factor in state.factors]
    psi = tuple(state.sigma2 * P / np.outer(s, s) for P, s in zip(scaled, moments.z_scale))
    diagonals = [np.diag(relative_cholesky(P / np.outer(s, s))) for P, s in zip(scaled, moments.z_scale)]
    return SufficientFit(
        beta=moments.beta_ols + state.beta / moments.x_scale,
        covariance=state.sigma2 * state.inverse / np.outer(moments.x_scale, moments.x_scale),
        psi=psi,
        relative_diagonal=float(min(diagonal.min() for diagonal in diagonals)),
        sigma2=state.sigma2,
        criterion=state.deviance + 2 * np.log(moments.x_scale).sum() * reml,
        kkt=moments.kkt(state)[0],
        gradient=float(np.abs(state.gradient).max()) / min(moments.counts),
    )


@dataclass(frozen=True, slots=True)
class State:
    """The profiled deviance at one theta, with what was on the way there."""

    deviance: float
    gradient: np.ndarray
    factors: list[np.ndarray]
    slopes: list[np.ndarray]  # derivative of the deviance by Psi, one matrix per level
    beta: np.ndarray
    inverse: np.ndarray
    sigma2: float


class Moments:
    """Cross-products of one data set, and the profiled deviance as a function of theta."""

    def __init__(self, y: np.ndarray, X: np.ndarray, levels: list[Level], reml: bool) -> None:
        if not 1 <= len(levels) <= 2:
            raise InputError(f"{len(levels)} nested grouping factors; one or two are supported")
        self.n, self.P, self.reml = len(y), X.shape[1], reml
        if self.n <= self.P:
            raise CannotEstimate(f"{self.n} observations leave no degree of freedom beside {self.P} fixed effects")
        self.df = self.n - self.P if reml else self.n
        self.x_scale = np.linalg.norm(X, axis=0) / np.sqrt(self.n)
        self.beta_ols = np.linalg.lstsq(X, y, rcond=None)[0]
        self.y_size = float(np.sum(y**2))
        self.z_scale = [np.sqrt(np.mean(level.Z**2, axis=0)) for level in levels]
        inner = levels[-1]
        outer = levels[0] if len(levels) == 2 else Level(np.empty((self.n, 0)), np.zeros(self.n, int), np.empty(0))
        self.k1, self.k2 = outer.Z.shape[1], inner.Z.shape[1]
        self.two = len(levels) == 2
        rest = np.column_stack([X / self.x_scale, y - X @ self.beta_ols])
        if self.two:
            rest = np.column_stack([outer.Z / self.z_scale[0], rest])
        self._collect(inner.Z / self.z_scale[-1], rest, inner.codes, outer.codes)
        self.free = [np.tril(np.equal.outer(level.blocks, level.blocks)) for level in levels]
        self.blocks = [level.blocks for level in levels]
        self.size = int(sum(mask.sum() for mask in self.free))

    def _collect(self, Z: np.ndarray, rest: np.ndarray, codes: np.ndarray, outer: np.ndarray) -> None:
        """Cross-products per inner group, groups sorted by (outer, pattern of Z'Z), compressed where many share."""
        order = np.argsort(codes, kind="stable")
        Z, rest, codes, outer = Z[order], rest[order], codes[order], outer[order]
        start = np.flatnonzero(np.diff(codes, prepend=-1))
        group_outer = outer[start]
        if not np.array_equal(np.repeat(group_outer, np.diff(start, append=self.n)), outer):
            raise InputError("an inner group lies in two outer groups: the random terms are not nested")
        k, r = Z.shape[1], rest.shape[1]
        own = np.add.reduceat(np.einsum("ni,nj->nij", Z, Z), start)
        joint = np.stack([np.add.reduceat(Z[:, [i]] * rest, start) for i in range(k)], axis=1)
        _, first, pattern = np.unique(
            np.round(own.reshape(-1, k * k), 9), axis=0, return_index=True, return_inverse=True
        )
        pattern = pattern.ravel()
        self.n_groups, self.n_outer = len(start), int(outer.max()) + 1
        self.counts = [self.n_outer, self.n_groups] if self.two else [self.n_groups]
        self.own, self.pattern_count = own[first], np.bincount(pattern)

        order = np.lexsort((pattern, group_outer))
        joint, pattern, group_outer = joint[order].reshape(-1, k * r), pattern[order], group_outer[order]
        cuts = np.flatnonzero((np.diff(pattern, prepend=-1) != 0) | (np.diff(group_outer, prepend=-1) != 0))
        A, A_pattern, A_outer = [], [], []
        for begin, end in zip(cuts, np.append(cuts[1:], self.n_groups)):
            chunk = joint[begin:end]
            if end - begin > k * r:
                chunk = np.linalg.qr(chunk, mode="r")
            A.append(chunk)
            A_pattern.append(np.full(len(chunk), pattern[begin]))
            A_outer.append(np.full(len(chunk), group_outer[begin]))
        self.A = np.concatenate(A).reshape(-1, k, r)
        self.A_pattern, self.A_outer = np.concatenate(A_pattern), np.concatenate(A_outer)
        self.slices = np.searchsorted(self.A_outer, np.arange(self.n_outer + 1))
        by_outer = np.argsort(outer, kind="stable")
        bounds = np.searchsorted(outer[by_outer], np.arange(self.n_outer + 1))
        sorted_rest = rest[by_outer]
        self.RR = np.stack([sorted_rest[a:b].T @ sorted_rest[a:b] for a, b in itertools.pairwise(bounds)])

    def check_residual(self) -> None:
        """Raise where group effects without shrinkage leave nothing: sigma^2 = 0, or no residual df."""
        A = _whitening(self.own, self.own)[self.A_pattern] @ self.A
        parts = [A[a:b] for a, b in itertools.pairwise(self.slices)]
        left = self.RR - np.stack([np.tensordot(part, part, ([0, 1], [0, 1])) for part in parts])
        k1 = self.k1
        if self.two:
            outer = _whitening(left[:, :k1, :k1], self.RR[:, :k1, :k1]) @ left[:, :k1, k1:]
            left = left[:, k1:, k1:] - outer.swapaxes(1, 2) @ outer
        total, size = left.sum(axis=0), self.RR[:, k1:, k1:].sum(axis=0)
        fixed = _whitening(total[:-1, :-1], size[:-1, :-1]) @ total[:-1, -1]
        if total[-1, -1] - fixed @ fixed <= 1e-11 * self.y_size:
            raise CannotEstimate(
                "fixed and random effects fit every observation exactly: sigma^2 = 0 and the likelihood is "
                "unbounded (too few observations per group, or data linear in the design)"
            )

    def factors(self, theta: np.ndarray) -> list[np.ndarray]:
        """Lower triangular relative factors from the vector of free elements."""
        factors, used = [], 0
        for mask in self.free:
            factor = np.zeros(mask.shape)
            count = int(mask.sum())
            factor[mask] = theta[used : used + count]
            used += count
            factors.append(factor)
        return factors

    def theta(self, psi: list[np.ndarray]) -> np.ndarray:
        """The vector of free elements of the factors of relative covariances."""
        return np.concatenate([relative_cholesky(P)[mask] for P, mask in zip(psi, self.free)])

    def evaluate(self, theta: np.ndarray) -> State:
        """Profiled deviance (lme4's criterion), its gradient by theta and its derivative by Psi."""
        factors = self.factors(theta)
        L2 = factors[-1]
        L1 = factors[0] if self.two else np.empty((0, 0))
        k1, P = self.k1, self.P

        shrink, logdets = _shrinkage(L2, self.own)  # (patterns, k2, k2)
        logdet = float(self.pattern_count @ logdets)
        left = np.eye(self.k2) - self.own @ shrink
        A = self.A
        shrunk = shrink[self.A_pattern] @ A
        B = self.RR.copy()
        flat, flat_shrunk = A.reshape(-1, A.shape[2]), shrunk.reshape(-1, A.shape[2])
        for o, (a, b) in enumerate(zip(self.slices[:-1] * self.k2, self.slices[1:] * self.k2)):
            B[o] -= flat[a:b].T @ flat_shrunk[a:b]

        C = B[:, k1:, k1:].sum(axis=0)
        if self.two:
            B11, B1R = B[:, :k1, :k1], B[:, :k1, k1:]
            shrink1, logdets = _shrinkage(L1, B11)
            logdet += float(logdets.sum())
            shrunk1 = shrink1 @ B1R
            C -= np.einsum("oka,okb->ab", B1R, shrunk1)
        inverse = np.linalg.inv(C[:P, :P])
        beta = inverse @ C[:P, P]
        rest = max(C[P, P] - C[:P, P] @ beta, np.finfo(float).tiny)
        sigma2 = rest / self.df
        deviance = logdet + self.df * (1 + np.log(2 * np.pi * sigma2))
        if self.reml:
            deviance += np.linalg.slogdet(C[:P, :P])[1]

        contrast = np.append(-beta, 1.0)
        W = left[self.A_pattern] @ A  # (rows, k2, r): Z2' H2^-1 [Z1 X y]
        slope2 = np.einsum("c,cij->ij", self.pattern_count, left @ self.own)
        U = W[:, :, k1:]
        slopes = []
        if self.two:
            W1 = W[:, :, :k1]
            slope2 = slope2 - np.einsum("hik,hjk->ij", W1 @ shrink1[self.A_outer], W1)
            U = U - W1 @ shrunk1[self.A_outer]
            left1 = np.eye(k1) - B11 @ shrink1
            slopes.append(self._slope((left1 @ B11).sum(axis=0), left1 @ B1R, inverse, contrast, sigma2))
        slopes.append(self._slope(slope2, U, inverse, contrast, sigma2))
        gradient = np.concatenate(
            [2 * (slope @ factor)[mask] for slope, factor, mask in zip(slopes, factors, self.free)]
        )
        return State(float(deviance), gradient, factors, slopes, beta, inverse, float(sigma2))

    def _slope(
        self, own: np.ndarray, U: np.ndarray, inverse: np.ndarray, contrast: np.ndarray, sigma2: float
    ) -> np.ndarray:
        """d deviance / d Psi = Z'H^-1Z - [Z'H^-1X (X'H^-1X)^-1 X'H^-1Z] - e e'/sigma^2, summed over groups."""
        error = U @ contrast
        slope = own - error.T @ error / sigma2
        if self.reml:
            slope = slope - np.einsum("hip,pq,hjq->ij", U[:, :, :-1], inverse, U[:, :, :-1], optimize=True)
        return (slope + slope.T) / 2

    def kkt(self, state: State) -> tuple[float, int, np.ndarray]:
        """Smallest eigenvalue per group of the derivative by Psi within a block, with its level and vector."""
        worst = (np.inf, 0, np.empty(0))
        for level, (slope, blocks) in enumerate(zip(state.slopes, self.blocks)):
            for block in np.unique(blocks):
                member = np.flatnonzero(blocks == block)
                eigenvalues, vectors = np.linalg.eigh(slope[np.ix_(member, member)])
                if eigenvalues[0] / self.counts[level] < worst[0]:
                    vector = np.zeros(len(blocks))
                    vector[member] = vectors[:, 0]
                    worst = (float(eigenvalues[0]) / self.counts[level], level, vector)
        return worst


def _shrinkage(L: np.ndarray, gram: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """L (I + L'GL)^-1 L' and log|I + L'GL| for each G of a stack."""
    K = np.eye(len(L)) + L.T @ gram @ L
    return L @ np.linalg.solve(K, np.broadcast_to(L.T, K.shape)), np.linalg.slogdet(K)[1]


def _whitening(gram: np.ndarray, size: np.ndarray) -> np.ndarray:
    """W with W'W the pseudo-inverse of each Gram matrix; directions that are rounding beside `size` are left out."""
    values, vectors = np.linalg.eigh(gram)
    rounding = 1e-10 * np.trace(size, axis1=-2, axis2=-1)[..., None]
    weight = np.divide(1.0, np.sqrt(np.maximum(values, rounding)), where=values > rounding, out=np.zeros_like(values))
    return weight[..., None] * vectors.swapaxes(-1, -2)
