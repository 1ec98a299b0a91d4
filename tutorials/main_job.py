"""The main job, end to end, on a cohort that the package simulates: h², the top hits beside the truth, two plots."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt

import annlmm as al


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("main_job.png"), help="where the picture goes")
    parser.add_argument("--dpi", type=int, default=110)
    arguments = parser.parse_args()

    al.settings.verbosity = "info"
    adata = al.datasets.gwas_cohort()
    truth = adata.uns["truth"]
    al.pp.kernel_grm(adata)
    al.tl.fit_null(adata, "phenotype", covariates="~ age + C(sex)")
    al.tl.associate(adata)

    fit = adata.uns["lmm"]
    print(f"\nh² = {fit['h_sq']:.3f} ± {fit['h_sq_standard_error']:.3f}", end="")
    print(f", 95 % interval {fit['h_sq_ci_low']:.3f} to {fit['h_sq_ci_high']:.3f}", end="")
    print(f", p(σ² = 0) = {fit['h_sq_p_value']:.1e}; simulated with h² = {truth['h_sq']:.2f}")
    print(f"\nFixed effects (simulated: {', '.join(f'{b:g}' for b in truth['beta'])})")
    print(fit["beta"].drop(columns="term").to_string(float_format="{:.4g}".format))

    top = al.get.association(adata).nsmallest(8, "p_value")[["beta", "standard_error", "p_value", "p_adjusted"]]
    simulated = dict(zip(truth["causal_variants"], truth["causal_effects"], strict=True))
    top["simulated_beta"] = [simulated.get(name, 0.0) for name in top.index]
    print("\nTop variants")
    print(top.to_string(float_format="{:.3g}".format))
    found = [name for name in simulated if name in top.index]
    print(f"\n{len(found)} of {len(simulated)} simulated causal variants are among the top {len(top)}")

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11, 3.6), width_ratios=(1, 2.6), layout="constrained", dpi=arguments.dpi
    )
    al.pl.qq(adata, ax=left)
    al.pl.manhattan(adata, ax=right)
    figure.savefig(arguments.out)
    print(f"wrote {arguments.out}")


if __name__ == "__main__":
    main()
