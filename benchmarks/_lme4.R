# lme4 and lmerTest on the first genes of a folder:  Rscript _lme4.R <folder> <n> <p> <genes>
# x (n x p, its first column the constant), y (n x genes) and donor (n), as doubles and integers in binary.
# One line per gene: seconds of lmer, seconds with Satterthwaite's degrees of freedom, sigma^2, tau^2, and of the last coefficient estimate, se, df.
suppressPackageStartupMessages({library(lme4); library(lmerTest)})
args <- commandArgs(trailingOnly = TRUE)
n <- as.integer(args[2]); p <- as.integer(args[3]); genes <- as.integer(args[4])
read <- function(name, what, size) readBin(file.path(args[1], name), what, size)
x <- matrix(read("x", "double", n * p), n)[, -1]
colnames(x) <- paste0("x", seq_len(p - 1))
y <- matrix(read("y", "double", n * genes), n)
data <- data.frame(x, donor = factor(read("donor", "integer", n)))
formula <- as.formula(paste("y ~", paste(colnames(x), collapse = " + "), "+ (1 | donor)"))
seconds <- function() proc.time()[["elapsed"]]
for (gene in seq_len(genes)) {
  data$y <- y[, gene]
  start <- seconds()
  fit <- lme4::lmer(formula, data = data)
  plain <- seconds() - start
  test <- coef(summary(as_lmerModLmerTest(fit)))
  whole <- seconds() - start
  variances <- as.data.frame(VarCorr(fit))$vcov
  cat(sprintf("%.17g", c(plain, whole, variances, test[p, 1:3])), "\n")
}
cat("version", as.character(packageVersion("lme4")), as.character(packageVersion("lmerTest")), as.character(getRversion()), "\n")
