# Reference fits for tests/test_mixed_reference.py: lme4 at its best of many starts and optimisers.
# Run in this folder: Rscript mixed.R. Writes mixed_data.csv and mixed_fits.csv.
suppressMessages(library(lme4))
stopifnot(packageVersion("lme4") >= "1.1-31")
set.seed(20240712)

grid <- c(-1.5, -1, -0.5, 0, 0.5, 1, 1.5)

# One dataset of n inputs on the grid, slopes depending on a (answer position) and yes.
draw <- function(case, n, sd_intercept, sd_slope, sd_residual, sd_curve = 0, corr = 0, dataset = "d1") {
  a <- rep_len(c(0, 1, 1, 0, 1), n)
  yes <- rep_len(c(1, 0, 0, 1, 1, 0, 0), n)
  z1 <- rnorm(n)
  b0 <- sd_intercept * z1
  b1 <- sd_slope * (corr * z1 + sqrt(1 - corr^2) * rnorm(n))
  b2 <- sd_curve * rnorm(n)
  rows <- expand.grid(lam = grid, k = seq_len(n))
  k <- rows$k
  y <- 1 + 0.5 * a[k] - 0.3 * yes[k] + b0[k] + rows$lam * (0.8 - 0.6 * a[k] + 0.2 * yes[k] + b1[k]) +
    rows$lam^2 * (0.15 + b2[k]) + rnorm(nrow(rows), sd = sd_residual)
  data.frame(case = case, dataset = dataset, input = paste0(dataset, "i", k), template = "t1", lam = rows$lam,
             lam2 = rows$lam^2, a = a[k], yes = yes[k], both = a[k] + yes[k], y = y)
}

nested <- function(case, datasets, n, sd_dataset) {
  parts <- lapply(seq_len(datasets), function(d) {
    part <- draw(case, n, 0.9, 0.6, 0.5, dataset = paste0("d", d))
    part$y <- part$y + sd_dataset * (rnorm(1) + part$lam * rnorm(1) + part$lam * part$a * rnorm(1))
    part
  })
  do.call(rbind, parts)
}

crossed <- function(case, n, templates, sd_template) {
  rows <- expand.grid(t = seq_len(templates), k = seq_len(n), lam = c(-1, 1))
  a <- rep_len(c(0, 1, 1), n)
  y <- 1 + 0.4 * rows$lam - 0.5 * a[rows$k] + rnorm(n)[rows$k] + sd_template * rnorm(templates)[rows$t] +
    rnorm(nrow(rows), sd = 0.7)
  data.frame(case = case, dataset = "d1", input = paste0("i", rows$k), template = paste0("t", rows$t),
             lam = rows$lam, lam2 = rows$lam^2, a = a[rows$k], yes = 0, both = a[rows$k], y = y)
}

# What is fitted here is what the file holds: six decimals.
exact <- function(frame) {
  for (name in c("lam", "y")) frame[[name]] <- round(frame[[name]], 6)
  frame$lam2 <- round(frame$lam^2, 6)
  frame
}

data <- list(
  interior = draw("interior", 24, 1, 0.7, 0.4, corr = 0.4),
  boundary = draw("boundary", 14, 1, 0.02, 0.8),
  zero = draw("zero", 12, 0.0, 0.0, 1),
  aliased = draw("aliased", 16, 1, 0.5, 0.4),
  curved = draw("curved", 16, 1, 0.5, 0.4),
  three = draw("three", 20, 1, 0.6, 0.3, sd_curve = 0.3),
  three_deficient = draw("three_deficient", 15, 1, 0.02, 0.8, sd_curve = 0),
  missing_cells = draw("missing_cells", 20, 1, 0.6, 0.5),
  missing_boundary = draw("missing_boundary", 16, 1, 0.02, 0.9),
  own_grids = draw("own_grids", 16, 1, 0.6, 0.5),
  unequal_fixed = draw("unequal_fixed", 18, 1, 0.6, 0.5),
  uncorrelated = draw("uncorrelated", 18, 1, 0.6, 0.5),
  nested = nested("nested", 6, 8, 0.5),
  nested_deficient = nested("nested_deficient", 5, 7, 0.15),
  crossed = crossed("crossed", 12, 5, 0.6),
  crossed_boundary = crossed("crossed_boundary", 10, 4, 0)
)
for (name in c("missing_cells", "missing_boundary"))
  data[[name]] <- data[[name]][sort(sample(nrow(data[[name]]), round(0.8 * nrow(data[[name]])))), ]
own <- data$own_grids
shift <- rnorm(16, sd = 0.3)[as.integer(factor(own$input, unique(own$input)))]
own$lam <- own$lam + shift
own$lam2 <- own$lam^2
data$own_grids <- own

standard <- "y ~ lam * (a + yes) + (1 + lam | input)"
formulas <- c(
  interior = standard, boundary = standard, zero = standard,
  aliased = "y ~ lam * (a + yes + both) + (1 + lam | input)",
  curved = "y ~ lam * (a + yes) + lam2 + (1 + lam | input)",
  three = "y ~ (lam + lam2) * a + (1 + lam + lam2 | input)",
  three_deficient = "y ~ (lam + lam2) * a + (1 + lam + lam2 | input)",
  missing_cells = standard, missing_boundary = standard, own_grids = standard,
  unequal_fixed = "y ~ lam * a + yes + (1 + lam | input)",
  uncorrelated = "y ~ lam * (a + yes) + (1 | input) + (0 + lam | input)",
  nested = "y ~ lam * a + (1 + lam | dataset) + (1 + lam | dataset:input)",
  nested_deficient = "y ~ lam * a + (1 + lam * a | dataset) + (1 + lam | dataset:input)",
  crossed = "y ~ lam + a + (1 | input) + (1 | template)",
  crossed_boundary = "y ~ lam + a + (1 | input) + (1 | template)"
)

# The best of the optimisers from several starts, each run to a much finer tolerance than lme4's default.
best_fit <- function(formula, frame, reml) {
  parsed <- suppressMessages(lFormula(formula, frame, REML = reml))
  objective <- do.call(mkLmerDevfun, parsed)
  lower <- environment(objective)$lower
  start0 <- environment(objective)$pp$theta
  best <- list(fval = Inf)
  keep <- function(par) {
    value <- objective(par)
    if (value < best$fval - 1e-12) best <<- list(par = par, fval = value)
  }
  for (s in seq_len(8)) {
    start <- if (s == 1) start0 else start0 * runif(1, 0.1, 2) + (lower < 0) * rnorm(length(start0), sd = 0.3)
    par <- start
    for (round in 1:3) {
      par <- minqa::bobyqa(par, objective, lower, control = list(rhobeg = 0.2 / 10^round, rhoend = 1e-10,
                                                                  maxfun = 20000))$par
      keep(par)
      par <- nlminb(par, objective, lower = lower, control = list(rel.tol = 1e-15, x.tol = 1e-12,
                                                                   eval.max = 5000, iter.max = 5000))$par
      keep(par)
    }
  }
  value <- objective(best$par)
  mkMerMod(environment(objective), list(par = best$par, fval = value, conv = 0), parsed$reTrms, parsed$fr)
}

digits <- function(x) formatC(as.numeric(x), digits = 15, format = "g", width = 1)

describe <- function(case, reml) {
  fit <- best_fit(as.formula(formulas[[case]]), data[[case]], reml)
  clean <- function(x) sub("(Intercept)", "Intercept", x, fixed = TRUE)
  beta <- fixef(fit)
  rows <- list(
    data.frame(quantity = "beta", group = "", term = clean(names(beta)), with_term = "", value = digits(beta)),
    data.frame(quantity = "se", group = "", term = clean(names(beta)), with_term = "",
               value = digits(sqrt(diag(as.matrix(vcov(fit)))))),
    data.frame(quantity = c("sigma2", "criterion", "singular"), group = "", term = "", with_term = "",
               value = c(digits(sigma(fit)^2), digits(if (reml) REMLcrit(fit) else -2 * as.numeric(logLik(fit))),
                         digits(isSingular(fit))))
  )
  components <- VarCorr(fit)
  for (name in names(components)) {
    psi <- as.matrix(components[[name]])
    index <- which(upper.tri(psi, diag = TRUE), arr.ind = TRUE)
    # A second term of one factor is named input.1; the first is the later level of detail.
    rows[[length(rows) + 1]] <- data.frame(
      quantity = "psi", group = sub("\\.[0-9]+$", "", name), term = clean(rownames(psi)[index[, 1]]),
      with_term = clean(rownames(psi)[index[, 2]]), value = digits(psi[index]))
  }
  cbind(case = case, formula = formulas[[case]], reml = as.integer(reml), do.call(rbind, rows))
}

# The boundary cases are redrawn until they lie on the boundary.
redraw <- list(
  boundary = function() draw("boundary", 14, 1, 0.02, 0.8),
  zero = function() draw("zero", 12, 0, 0, 1),
  missing_boundary = function() {
    full <- draw("missing_boundary", 16, 1, 0.02, 0.9)
    full[sort(sample(nrow(full), 90)), ]
  },
  crossed_boundary = function() crossed("crossed_boundary", 10, 4, 0)
)
on_boundary <- function(case) {
  fit <- best_fit(as.formula(formulas[[case]]), data[[case]], TRUE)
  if (case == "zero") max(abs(fit@theta)) < 1e-4 else isSingular(fit)
}
for (name in names(data)) data[[name]] <- exact(data[[name]])
for (case in names(redraw)) while (!on_boundary(case)) data[[case]] <- exact(redraw[[case]]())

fits <- do.call(rbind, c(
  lapply(names(formulas), describe, reml = TRUE),
  lapply(setdiff(names(formulas), c("crossed", "crossed_boundary")), describe, reml = FALSE)
))
write.csv(do.call(rbind, data), "mixed_data.csv", row.names = FALSE, quote = FALSE)
write.csv(fits, "mixed_fits.csv", row.names = FALSE, quote = FALSE)
