# Reference values for tests/test_steerability_reference.py, by base R only: lm, manova, t.test, prop.test, hatvalues.
# Run in this folder: Rscript --vanilla steerability.R. Writes steerability_inputs.csv and steerability_fits.csv.
set.seed(20241207)
grid <- c(-1.5, -1, -0.5, 0, 0.5, 1, 1.5)
n <- 48

a <- rep_len(c(1, 1, 0, 0, 1), n)
yes <- rep_len(c(1, 0, 0, 1, 1, 0, 0), n)
len <- round(rnorm(n, 5 * a, 20))
slope <- 0.4 + 1.3 * a - 0.5 * yes + 0.6 * a * yes + rnorm(n)
curves <- round(outer(slope, grid) + 2 * rnorm(n) + outer(0.2 + 0.1 * rnorm(n), grid^2) +
                matrix(rnorm(n * 7, sd = 0.1), n), 6)
colnames(curves) <- paste0("y", 1:7)
write.csv(data.frame(a, yes, len, curves), "steerability_inputs.csv", row.names = FALSE)

out <- list()
add <- function(quantity, value) out[[length(out) + 1]] <<- data.frame(quantity, index = seq_along(value), value)

lines <- apply(curves, 1, function(y) lm(y ~ grid))
s <- sapply(lines, function(fit) coef(fit)[[2]])
add("slope", s)
add("intercept", sapply(lines, function(fit) coef(fit)[[1]]))
add("r_squared", sapply(lines, function(fit) summary(fit)$r.squared))
add("rmse", sapply(lines, function(fit) sqrt(mean(resid(fit)^2))))
add("curvature", apply(curves, 1, function(y) coef(lm(y ~ grid + I(grid^2)))[[3]]))
add("monotonicity", apply(curves, 1, function(y) cor(y, grid, method = "kendall")))

bent <- curves %*% contr.poly(7, scores = grid)[, 2:6]
hotelling <- anova(lm(bent ~ 1), test = "Hotelling-Lawley")
add("linearity_f", hotelling[1, "approx F"])
add("linearity_p", hotelling[1, "Pr(>F)"])

add("mean_limits", t.test(s)$conf.int)
add("negative_limits", prop.test(sum(s < 0), n, correct = FALSE)$conf.int)

design <- data.frame(s, A = a - 0.5, Y = yes - 0.5, L = len - mean(len))
robust <- lm(s ~ A + Y + L + A:Y, design)
X <- model.matrix(robust)
bread <- solve(crossprod(X))
hc2 <- bread %*% crossprod(X * resid(robust) / sqrt(1 - hatvalues(robust))) %*% bread
add("effect", coef(robust))
add("effect_hc2", sqrt(diag(hc2)))

# Shapley shares of adjusted R squared, as the mean gain over the six orders of entry.
terms <- c("A", "Y", "L")
orders <- list(1:3, c(1, 3, 2), c(2, 1, 3), c(2, 3, 1), c(3, 1, 2), c(3, 2, 1))
adjusted <- function(which) {
  if (length(which) == 0) return(0)
  summary(lm(reformulate(terms[which], "s"), design))$adj.r.squared
}
gain <- sapply(orders, function(order) {
  gains <- numeric(3)
  for (k in 1:3) gains[order[k]] <- adjusted(order[seq_len(k)]) - adjusted(order[seq_len(k - 1)])
  gains
})
add("shapley", rowMeans(gain))
add("shapley_interaction", summary(lm(s ~ A + Y + L + A:Y, design))$adj.r.squared - adjusted(1:3))

fits <- do.call(rbind, out)
fits$value <- sprintf("%.15g", fits$value)
write.csv(fits, "steerability_fits.csv", row.names = FALSE, quote = FALSE)
