# Reference values for tests/test_spurious_clustered.py: CR2 standard errors and Satterthwaite degrees of freedom of
# clubSandwich (Pustejovsky and Tipton), which share no code with ours. One question has one to five inputs; A is
# crossed inside questions, Yes and the length differ between them. `alone` has one input a question, where CR2 is HC2.
# Run in this folder: Rscript --vanilla clustered.R. Writes clustered_inputs.csv and clustered_fits.csv.
suppressPackageStartupMessages(library(clubSandwich))
set.seed(20261127)

draw <- function(case, sizes) {
  question <- rep(seq_along(sizes), sizes)
  n <- length(question)
  a <- ave(question, question, FUN = function(q) rep_len(c(1, 0), length(q))) - 0.5
  if (all(sizes == 1)) a <- rep_len(c(1, 0, 0, 1, 0), n) - 0.5
  yes <- (rep_len(c(1, 0, 0, 0, 1, 0), length(sizes))[question]) - 0.5
  length <- round(rnorm(length(sizes), 0, 8))[question]
  slope <- 0.3 + 0.5 * a - 0.2 * yes + rnorm(length(sizes))[question] + rnorm(n, sd = 0.3 + (a > 0))
  data.frame(case, question, a, yes, length, slope = round(slope, 6))
}

data <- rbind(
  draw("twins", rep(2, 14)),
  draw("uneven", c(1, 2, 2, 5, 3, 1, 2, 4, 1, 2, 3, 2)),
  draw("alone", rep(1, 17))
)
write.csv(data, "clustered_inputs.csv", row.names = FALSE, quote = FALSE)

fits <- lapply(split(data, data$case), function(one) {
  fit <- lm(slope ~ a + yes + length, one)
  tested <- coef_test(fit, vcov = "CR2", cluster = one$question, test = "Satterthwaite")
  limits <- conf_int(fit, vcov = "CR2", cluster = one$question, test = "Satterthwaite")
  data.frame(case = one$case[1], term = names(coef(fit)), estimate = tested$beta, se = tested$SE,
             df = if (is.null(tested$df_Satt)) tested$df else tested$df_Satt,
             p = if (is.null(tested$p_Satt)) tested$p_val else tested$p_Satt,
             ci_low = limits$CI_L, ci_high = limits$CI_U)
})
fits <- do.call(rbind, fits)
for (name in names(fits)[-(1:2)]) fits[[name]] <- format(fits[[name]], digits = 15, trim = TRUE, scientific = TRUE)
write.csv(fits, "clustered_fits.csv", row.names = FALSE, quote = FALSE)
