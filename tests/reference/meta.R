# Random-effects meta-analysis by base R only: REML by maximising the restricted likelihood, Hartung-Knapp,
# Q-profile intervals, and prediction from the confidence distribution of tau2. Independent of steerstats: matrices,
# optimize(), uniroot() and integrate(), no score equation and no quadrature of our own.
#   Rscript tests/reference/meta.R > tests/reference/meta.csv
# Data: 13 trials of BCG vaccination (Colditz et al. 1994, doi:10.1001/jama.1994.03510330076038), log risk ratios;
# the same with variances a hundred times larger (tau on its boundary); five of them.
tpos <- c(4, 6, 3, 62, 33, 180, 8, 505, 29, 17, 186, 5, 27)
tneg <- c(119, 300, 228, 13536, 5036, 1361, 2537, 87886, 7470, 1699, 50448, 2493, 16886)
cpos <- c(11, 29, 11, 248, 47, 372, 10, 499, 45, 65, 141, 3, 29)
cneg <- c(128, 274, 209, 12619, 5761, 1079, 619, 87892, 7232, 1600, 27197, 2338, 17825)
effect <- log((tpos / (tpos + tneg)) / (cpos / (cpos + cneg)))
variance <- 1 / tpos - 1 / (tpos + tneg) + 1 / cpos - 1 / (cpos + cneg)

fit <- function(y, v, level = 0.95) {
  k <- length(y)
  X <- matrix(1, k, 1)
  restricted <- function(tau2) {
    V <- diag(v + tau2)
    W <- solve(V)
    b <- solve(t(X) %*% W %*% X, t(X) %*% W %*% y)
    r <- y - X %*% b
    -0.5 * (determinant(V)$modulus + determinant(t(X) %*% W %*% X)$modulus + t(r) %*% W %*% r)[1]
  }
  tau2 <- optimize(restricted, c(0, 10 * var(y)), maximum = TRUE, tol = 1e-13)$maximum
  if (restricted(0) >= restricted(tau2)) tau2 <- 0
  w <- 1 / (v + tau2)
  mu <- sum(w * y) / sum(w)
  se <- sqrt(sum(w * (y - mu)^2) / (k - 1) / sum(w))
  q <- function(t2) { w <- 1 / (v + t2); sum(w * (y - sum(w * y) / sum(w))^2) }
  bound <- function(p) {
    target <- qchisq(p, k - 1)
    if (q(0) <= target) return(0)
    uniroot(function(t2) q(t2) - target, c(0, 1e4), tol = 1e-13)$root
  }
  t1 <- qt((1 + level) / 2, k - 1)
  # P(new effect <= x): over u ~ chi2(k - 1), at the tau2 where Q is u, normal about its weighted mean.
  at <- function(u) if (q(0) <= u) 0 else uniroot(function(t2) q(t2) - u, c(0, 1e12), tol = 1e-14, maxiter = 10000)$root
  below <- function(x, z) sapply(z, function(one) {
    t2 <- at(qchisq(pnorm(one), k - 1))
    w <- 1 / (v + t2)
    pnorm((x - sum(w * y) / sum(w)) / sqrt(t2 + 1 / sum(w)))
  })
  mixture <- function(x) integrate(function(z) below(x, z) * dnorm(z), -7, 7, rel.tol = 1e-9, subdivisions = 2000)$value
  limit <- function(p) uniroot(function(x) mixture(x) - p, mu + c(-40, 40) * sqrt(tau2 + 1), tol = 1e-11)$root
  c(mean = mu, se = se, ci_low = mu - t1 * se, ci_high = mu + t1 * se, tau2 = tau2,
    tau2_low = bound((1 + level) / 2), tau2_high = bound((1 - level) / 2),
    prediction_low = limit((1 - level) / 2), prediction_high = limit((1 + level) / 2), q = q(0),
    q_p = pchisq(q(0), k - 1, lower.tail = FALSE))
}

cases <- list(bcg = list(effect, variance), boundary = list(effect, 100 * variance), five = list(effect[1:5], variance[1:5]))
rows <- do.call(rbind, lapply(names(cases), function(name) {
  found <- fit(cases[[name]][[1]], cases[[name]][[2]])
  rbind(data.frame(case = name, quantity = names(found), value = found),
        data.frame(case = name, quantity = "effect", value = cases[[name]][[1]]),
        data.frame(case = name, quantity = "variance", value = cases[[name]][[2]]))
}))
rows$value <- format(rows$value, digits = 15, trim = TRUE, scientific = TRUE)
write.csv(rows, stdout(), row.names = FALSE, quote = FALSE)
