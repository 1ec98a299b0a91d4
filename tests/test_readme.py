"""The README as a newcomer runs it: every block of Python, on files as it describes them."""

from __future__ import annotations

import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import annlmm as al

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    yield
    plt.close("all")


def block(name, language="python"):
    found = re.search(rf"^<!-- {name} -->\n+```{language}\n(.*?)^```", README, flags=re.DOTALL | re.MULTILINE)
    assert found is not None, f"README.md has no block after <!-- {name} -->"
    return found.group(1)


def run(name):
    namespace = {}
    exec(compile(block(name), f"README.md, {name}", "exec"), namespace)
    return namespace["adata"]


def test_every_block_is_run():
    assert set(re.findall(r"^<!-- example: (\w+) -->\n+```python", README, flags=re.MULTILINE)) == {
        "start",
        "cells",
        "plink",
    }
    assert README.count("```python") == 3


def test_start():
    adata = run("example: start")
    assert adata.var["lmm_p_value"].notna().all()


def test_own_cells():
    cells = al.datasets.donors(n_donors=8, cells_per_donor=20, n_genes=20, n_de=3)
    cells.X = cells.layers["logcounts"]
    cells.obs["donor"] = cells.obs["donor_id"]
    for layer in list(cells.layers):
        if layer is not None:
            del cells.layers[layer]
    cells.write_h5ad("cells.h5ad")
    adata = run("example: cells")
    assert al.settings.verbosity == 2
    assert np.isfinite(adata.var["de_p_value"]).all()


def test_own_genotypes(capsys):
    bed_reader = pytest.importorskip("bed_reader")
    cohort = al.datasets.gwas_cohort(n_obs=120, n_vars=200, n_causal=3)
    bed_reader.to_bed(
        "cohort.bed",
        np.asarray(cohort.X, dtype=np.float32),
        properties={
            "iid": cohort.obs_names.to_numpy(dtype=str),
            "sid": cohort.var_names.to_numpy(dtype=str),
            "chromosome": cohort.var["chrom"].to_numpy(dtype=str),
            "bp_position": cohort.var["pos"].to_numpy(),
            "sex": np.where(cohort.obs["sex"] == "male", 1, 2),
            "pheno": cohort.obs["phenotype"].to_numpy().astype(str),
        },
    )
    adata = run("example: plink")
    printed = capsys.readouterr().out
    assert "Linear mixed model" in printed
    assert "sex[T.male]" in printed.replace("C(sex)", "sex")
    assert adata.var["lmm_p_value"].notna().any()


@pytest.mark.parametrize("name", ["main", "test"])
def test_the_two_commands_are_marked(name):
    """`.ci/run` runs them as they stand."""
    assert block(f"command: {name}", "bash").startswith("python -m venv .venv && .venv/bin/pip install ")
