# lme4 and lmerTest on design_<i>.csv of a folder:  Rscript _agreement_lme4.R <folder> <designs>
# One line per design and kind of value: "design name values..."
suppressPackageStartupMessages({library(lme4); library(lmerTest)})
args <- commandArgs(trailingOnly = TRUE)
say <- function(i, name, values) cat(i, name, sprintf("%.17g", values), "\n")
for (i in seq_len(as.integer(args[2])) - 1) {
  data <- read.csv(file.path(args[1], sprintf("design_%d.csv", i)))
  names <- setdiff(names(data), c("y", "group"))
  formula <- as.formula(paste("y ~ 1", if (length(names)) paste("+", paste(names, collapse = " + ")), "+ (1 | group)"))
  reml <- suppressMessages(lmerTest::lmer(formula, data = data))
  ml <- suppressMessages(lme4::lmer(formula, data = data, REML = FALSE))
  test <- coef(summary(reml))
  for (column in c("Estimate", "Std. Error", "df", "Pr(>|t|)")) say(i, gsub("[^A-Za-z]", "", column), test[, column])
  say(i, "variances", as.data.frame(VarCorr(reml))$vcov)
  say(i, "variancesML", as.data.frame(VarCorr(ml))$vcov)
  say(i, "logLik", c(logLik(reml), logLik(ml)))
}
cat("version", as.character(packageVersion("lme4")), as.character(packageVersion("lmerTest")), as.character(getRversion()), "\n")
