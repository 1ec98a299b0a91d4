# Reference values of tests/test_variance_components.py and tests/test_differential.py, by lme4, lmerTest, pbkrtest and RLRsim.
#
#   python airway_genes.py small_airway.h5ad reference_gemma_0.98.5.tsv airway_genes.csv     (12 genes of sc_small_airway)
#   Rscript genes.R <folder classic_lme> airway_genes.csv
#
# writes genes_fits.csv, genes_terms.csv, genes_tests.csv and genes_rlrt.csv beside itself.
# Made with R 4.2.2, lme4 1.1-31, lmerTest 3.1-3, pbkrtest 0.5.2, RLRsim 3.1-8 (Debian 12).
suppressPackageStartupMessages({library(lme4); library(lmerTest); library(pbkrtest); library(RLRsim)})
args <- commandArgs(trailingOnly = TRUE)
folder <- args[1]
get <- function(name) read.csv(file.path(folder, paste0(name, ".csv")), stringsAsFactors = TRUE)
# pbkrtest 0.5.2 leaves prior weights out of its covariance (275 degrees of freedom for 180 rows): no Kenward-Roger with them.
# Optimised to the last digits: lmerTest's numbers follow theta.
control <- lmerControl(optimizer = "bobyqa", optCtrl = list(rhoend = 1e-12, maxfun = 1e5), calc.derivs = FALSE)

fits <- list(); terms <- list(); tests <- list(); rlrt <- list()
add <- function(name, formula, data, term = NULL, reml = TRUE, weights = NULL, kr = reml, contrast = NULL) {
  data$.w <- if (is.null(weights)) rep(1, nrow(data)) else weights
  # Stated as a literal call, which pbkrtest's update() can evaluate again.
  assign("data.", data, envir = globalenv())
  m <- eval(bquote(lmerTest::lmer(.(formula), data = data., REML = .(reml), weights = .w, control = .(control))), globalenv())
  vc <- as.data.frame(VarCorr(m))
  fits[[length(fits) + 1]] <<- data.frame(name, reml, n = nobs(m), sigma_sq = vc$vcov[1], tau_sq = vc$vcov[2],
                                          log_likelihood = as.numeric(logLik(m)), x_logdet = determinant(crossprod(getME(m, "X")))$modulus)
  s <- coef(summary(m))
  k <- if (kr) coef(summary(m, ddf = "Kenward-Roger")) else NULL
  for (i in rownames(s)) {
    terms[[length(terms) + 1]] <<- data.frame(name, reml, term = i, estimate = s[i, 1], standard_error = s[i, 2], df = s[i, 3],
      t = s[i, 4], p_value = s[i, 5], kr_standard_error = if (kr) k[i, 2] else NA, kr_df = if (kr) k[i, 3] else NA,
      kr_t = if (kr) k[i, 4] else NA, kr_p_value = if (kr) k[i, 5] else NA)
  }
  if (!is.null(term)) {
    a <- anova(m, type = 3)[term, ]
    b <- if (kr) anova(m, type = 3, ddf = "Kenward-Roger")[term, ] else NULL
    tests[[length(tests) + 1]] <<- data.frame(name, reml, term, num_df = a[["NumDF"]], df = a[["DenDF"]], f = a[["F value"]],
      p_value = a[["Pr(>F)"]], kr_df = if (kr) b[["DenDF"]] else NA, kr_f = if (kr) b[["F value"]] else NA,
      kr_p_value = if (kr) b[["Pr(>F)"]] else NA)
  }
  if (!is.null(contrast)) {
    a <- contest1D(m, contrast); b <- contest1D(m, contrast, ddf = "Kenward-Roger")
    terms[[length(terms) + 1]] <<- data.frame(name, reml, term = "contrast", estimate = a[[1]], standard_error = a[[2]], df = a[[3]],
      t = a[[4]], p_value = a[[5]], kr_standard_error = b[[2]], kr_df = b[[3]], kr_t = b[[4]], kr_p_value = b[[5]])
  }
  invisible(m)
}
simulate <- function(name, m, data) {
  # m0 without the random effect is least squares
  set.seed(1)
  r <- exactRLRT(m, nsim = 1e6)
  rlrt[[length(rlrt) + 1]] <<- data.frame(name, statistic = unname(r$statistic), p_value = r$p.value, draws = 1e6)
}

sleepstudy <- get("sleepstudy"); sleepstudy$Subject <- factor(sleepstudy$Subject)
machines <- get("machines"); machines$Worker <- factor(machines$Worker)
orthodont <- get("orthodont"); female <- droplevels(subset(orthodont, Sex == "Female"))
ergostool <- get("ergostool"); ergostool$Subject <- factor(ergostool$Subject)
# Unbalanced: every seventh row (machines: every fifth) is left out.
thin <- function(d, k) droplevels(d[(seq_len(nrow(d)) - 1) %% k != 0, ])
ortho <- orthodont; ortho$Sex <- relevel(ortho$Sex, "Female")

m <- add("sleepstudy", Reaction ~ Days + (1 | Subject), sleepstudy, "Days"); simulate("sleepstudy", m)
add("sleepstudy", Reaction ~ Days + (1 | Subject), sleepstudy, "Days", reml = FALSE)
m <- add("sleepstudy_thin", Reaction ~ Days + (1 | Subject), thin(sleepstudy, 7), "Days")
add("sleepstudy_weights", Reaction ~ Days + (1 | Subject), sleepstudy, "Days", weights = 0.5 + sleepstudy$Days / 4, kr = FALSE)
m <- add("machines", score ~ Machine + (1 | Worker), machines, "Machine", contrast = c(0, -0.5, 1)); simulate("machines", m)
add("machines", score ~ Machine + (1 | Worker), machines, "Machine", reml = FALSE)
add("machines_thin", score ~ Machine + (1 | Worker), thin(machines, 5), "Machine", contrast = c(0, -0.5, 1))
add("machines_weights", score ~ Machine + (1 | Worker), machines, "Machine", weights = 1 + (seq_len(nrow(machines)) %% 4), kr = FALSE)
m <- add("female", distance ~ age + (1 | Subject), female, "age"); simulate("female", m)
add("orthodont", distance ~ age + Sex + (1 | Subject), ortho, "Sex")
add("orthodont_thin", distance ~ age + Sex + (1 | Subject), thin(ortho, 7), "Sex")
m <- add("ergostool", effort ~ Type + (1 | Subject), ergostool, "Type"); simulate("ergostool", m)
dyestuff <- get("dyestuff"); m <- add("dyestuff", Yield ~ 1 + (1 | Batch), dyestuff); simulate("dyestuff", m)

airway <- read.csv(args[2], stringsAsFactors = TRUE); airway$knock_out <- relevel(airway$Genotype, "WT")
for (gene in setdiff(names(airway), c("Genotype", "knock_out", "pig"))) {
  airway$y <- airway[[gene]]
  m <- add(gene, y ~ knock_out + (1 | pig), airway, "knock_out")
}

round_out <- function(table, file) write.csv(format(table, digits = 15, trim = TRUE), file, row.names = FALSE, quote = FALSE)
here <- dirname(sub("--file=", "", grep("--file=", commandArgs(), value = TRUE)))
round_out(do.call(rbind, fits), file.path(here, "genes_fits.csv"))
round_out(do.call(rbind, terms), file.path(here, "genes_terms.csv"))
round_out(do.call(rbind, tests), file.path(here, "genes_tests.csv"))
round_out(do.call(rbind, rlrt), file.path(here, "genes_rlrt.csv"))
