"""Nothing that is read from a file is evaluated, and nothing in it is believed before memory is taken.

Stored formulas of null models are in `test_covariates` too; damaged .bed files in `test_io`.
"""

from __future__ import annotations

import pickle
import tracemalloc
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from helpers import cohort, everything, untouched
from scipy import sparse

import annlmm as al
from annlmm._slots.formula import check_formula
from annlmm._slots.kernel import read_family


def message_of(call) -> str | None:
    """Of the error that says what is wrong; None if there is none. A MemoryError or any other goes on."""
    try:
        call()
    except (ValueError, TypeError, KeyError) as error:
        return str(error)
    return None


# ------------------------------------------------------------------------------------------- formulas

ATTACKS = [
    "__import__('os').system('touch {p}')",
    "{open('{p}', 'w')}",
    "open('{p}', 'w')",
    "eval('open(1)')",
    "C(batch, contr.__class__)",
    "C(batch, contr.mro())",
    "C(age, eval)",
    "np.vectorize(exec)('1')",
    "np.save('{p}', age)",
    "np.ctypeslib.os.system('touch {p}')",
    "np.lib.format.open_memmap('{p}', 'w+', shape=(9,))",
    "np.ones(10**12)",
    "np.add.at(age, 0, 1)",
    "age.to_csv('{p}')",
    "age.to_pickle('{p}')",
    "{age.values}",
    "{(lambda: open('{p}', 'w'))()}",
    "{[open('{p}', 'w') for _ in age]}",
    "log(age).to_csv('{p}')",
    "{().__class__.__bases__[0].__subclasses__()}",
    "{globals()}",
    "{__builtins__}",
    "log(age)[open('{p}', 'w')]",
    # A quote in a string leaves the string that formulaic makes of the call.
    "C(age, 'x\") or open(chr(47)) #')",
    # Backticks in strings must not hide what stands between them.
    "C(age, '`' + str(open('{p}', 'w')) + '`')",
    "C(age, '\\'`' + str(open('{p}', 'w')) + '`\\'')",
]


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_formula_computes_and_does_nothing_else(tmp_path, attack):
    adata = cohort()
    path = tmp_path / "executed"
    formula = "~ age + " + attack.replace("{p}", str(path))
    with untouched(adata), pytest.raises(ValueError, match=r"covariates=") as caught:
        al.tl.fit_null(adata, "y", covariates=formula, kernel=None)
    assert list(tmp_path.iterdir()) == []
    said = str(caught.value)
    assert (
        "is not evaluated; a formula may use columns" in said or "unterminated string" in said
    )  # formulaic cannot read it


def test_a_column_does_not_make_a_function_of_python_callable(tmp_path):
    adata = cohort()
    adata.obs["open"] = adata.obs["age"]
    with pytest.raises(ValueError, match="'open' is not evaluated"):
        al.tl.fit_null(adata, "y", covariates=f"~ open('{tmp_path}/executed', 'w')", kernel=None)
    al.tl.fit_null(adata, "y", covariates="~ C(sex) + log(open)", kernel=None)


FINE = [
    "~ age + C(sex)",
    "~ log(age) + I(age ** 2)",
    "~ np.where(age > 40, 1, 0) + np.sqrt(age)",
    "~ poly(age, 2) + C(batch, contr.treatment(base='b'))",
    "~ C(batch, contr.sum) + bs(age, df=4)",
    "~ Q('age') * C(sex) + X_pca[:, 0]",
    "~ `age` + scale(`age` ** 2)",
    "~ {age / 10} + abs(age - 40)",
    "~ C(batch, {'x': [1, 0, 0], 'y': [0, 1, -1]})",
    "~ np.clip(age, 30, 60):sex",
    "~ {max(1, 2) * age}",
]


@pytest.mark.parametrize("formula", FINE)
def test_what_formulas_are_for_is_allowed(formula):
    adata = cohort()
    check_formula(formula, {*adata.obs.columns, *adata.obsm})
    al.tl.fit_null(adata, "y", covariates=formula, kernel=None)


def test_formulas_of_other_functions_are_checked_too(tmp_path):
    attack = f"~ open('{tmp_path}/executed', 'w')"
    adata = cohort()
    al.pp.kernel_group(adata, "donor")
    for call in (
        lambda: al.tl.variance_components(adata, attack),
        lambda: al.tl.differential(adata, "sex", attack),
    ):
        with untouched(adata), pytest.raises(ValueError, match="'open' is not evaluated"):
            call()
    genotype = ad.AnnData(np.ones((8, 2)), obs=pd.DataFrame(index=[f"d{i}" for i in range(8)]))
    with pytest.raises(ValueError, match="'open' is not evaluated"):
        al.tl.map_eqtl(adata, genotype, "donor", window=None, covariates=attack)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def whole() -> ad.AnnData:
    al.settings.progress = False
    return everything()


def test_no_text_that_was_stored_is_evaluated(whole, tmp_path, monkeypatch):
    """Every text of every entry becomes a formula that opens a file; the functions that read them may refuse, not run it."""
    import formulaic

    attack = f"~ open('{tmp_path}/executed', 'w')"
    adata = whole.copy()
    for entry in adata.uns.values():
        for part in (entry, *(value for value in entry.values() if isinstance(value, dict))):
            for name, value in part.items():
                if name == "covariates" or (
                    isinstance(value, str) and name in ("kernel", "interaction", "contrast", "term")
                ):
                    part[name] = attack
    adata.write_h5ad(tmp_path / "evil.h5ad")
    adata = ad.read_h5ad(tmp_path / "evil.h5ad")
    monkeypatch.setattr(formulaic, "Formula", lambda *_: pytest.fail("a stored formula was parsed"))
    for call in (
        lambda: al.get.null_model(adata),
        lambda: al.get.null_model(adata, "several", phenotype="y"),
        lambda: al.tl.associate(adata),
        lambda: al.tl.associate(adata, "genomic", loco="chrom"),
        lambda: al.get.association(adata),
        lambda: al.get.differential(adata),
        lambda: al.get.variance_components(adata),
        lambda: al.get.eqtl(adata),
    ):
        said = message_of(call)
        assert said is None or "~ open" in said  # as the key of a kernel
    assert not (tmp_path / "executed").exists()


# ------------------------------------------------------------------------------------------- entries of .uns

WRONG = {"text": "evil", "huge": 10**15, "NaN": np.full(3, np.nan)}
READERS = {
    "kernel": lambda a, k: al.get.kernel(a, k),
    "related": lambda a, k: al.tl.fit_null(a, "y", kernel=k, gamma=1.0, copy=True),
    "spatial": lambda a, k: read_family(a, k),
    "lmm": lambda a, k: al.get.null_model(a, k),
    "several": lambda a, k: al.get.association(a, k),
    "varcomp": lambda a, k: al.get.variance_components(a, k),
    "joint": lambda a, k: al.get.differential(a, k, levels=True),
    "eqtl": lambda a, k: al.get.eqtl(a, k),
}


@pytest.mark.parametrize("key", READERS)
def test_any_field_may_hold_anything(whole, key):
    """It is used as what it must be, or refused by a message that names the entry; no other error, and no memory for a count."""
    places = [(name,) for name in whole.uns[key]]
    places += [(n, m) for n, part in whole.uns[key].items() if isinstance(part, dict) for m in part]
    shallow = ad.AnnData(whole.X, obs=whole.obs, var=whole.var, obsm=dict(whole.obsm), varm=dict(whole.varm))
    for place in places:
        for wrong in (*WRONG.values(), None):
            adata = shallow.copy()
            for name, entry in whole.uns.items():
                adata.uns[name] = {k: dict(v) if isinstance(v, dict) else v for k, v in entry.items()}
            part = adata.uns[key] if len(place) == 1 else adata.uns[key][place[0]]
            if wrong is None:
                del part[place[-1]]
            else:
                part[place[-1]] = wrong
            said = message_of(lambda adata=adata: READERS[key](adata, key))
            assert said is None or any(t in said for t in (repr(key), "kernel=", "groupby=")), (place, wrong, said)


# ------------------------------------------------------------------------------------------- headers and counts


def refused(call, message, most=20e6):
    tracemalloc.start()
    try:
        with pytest.raises((ValueError, OSError, TypeError), match=message):
            call()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < most, f"{peak / 1e6:.0f} MB"


def test_plink_counts_are_those_of_the_lines(tmp_path):
    """20,000 variants × 20,000 donors in 3 bytes: a gigabyte is not taken for them."""
    stem = tmp_path / "evil"
    (tmp_path / "evil.bed").write_bytes(bytes([0x6C, 0x1B, 1]))
    (tmp_path / "evil.bim").write_text("".join(f"1 rs{i} 0 {i} A G\n" for i in range(20_000)))
    (tmp_path / "evil.fam").write_text("".join(f"f i{i} 0 0 0 1\n" for i in range(20_000)))
    refused(
        lambda: al.io.read_plink(stem), r"must have 100000003 bytes for 20000 donors .* found 3: it is truncated", 80e6
    )


def test_plink_positions_and_numbers_of_any_length(tmp_path):
    (tmp_path / "evil.bed").write_bytes(bytes([0x6C, 0x1B, 1, 0]))
    (tmp_path / "evil.fam").write_text("f i 0 0 0 1\n")
    for position in ("9" * 4000, "__import__('os')", "1e400", "0x10"):
        (tmp_path / "evil.bim").write_text(f"1 rs 0 {position} A G\n")
        refused(
            lambda: al.io.read_plink(tmp_path / "evil"), r"`bim`: position in line 1 of evil\.bim must be an integer"
        )


def test_bimbam_holds_numbers_only(tmp_path):
    path = tmp_path / "geno.txt"
    for dosage in ("__import__('os')", "1e999", "inf", "0x1p3"):
        path.write_text(f"rs1 A G {dosage}\n")
        refused(lambda: al.io.read_bimbam(path), r"dosage 1 in line 1 of geno\.txt must be a finite number")


@pytest.mark.parametrize("kind", ["csr", "csc"])
@pytest.mark.parametrize("shape", [(10**12, 12), (40, 10**12)])
def test_a_sparse_matrix_that_lies_about_its_shape(tmp_path, kind, shape):
    adata = cohort()
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", gamma=1.0)
    adata.X = getattr(sparse, f"{kind}_matrix")(adata.X)
    path = tmp_path / "evil.h5ad"
    adata.write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = shape
    # In memory it is anndata and scipy that refuse, by the memory that there is not or the lengths that differ.
    with pytest.raises((ValueError, MemoryError)):
        ad.read_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    refused(lambda: al.tl.associate(backed), r"adata\.X: stored as \(.*\) for \(40, 12\) names; the file is damaged")
    backed.file.close()


def test_a_sparse_matrix_with_lengths_that_differ(tmp_path):
    adata = cohort()
    al.pp.kernel_group(adata, "donor")
    al.tl.fit_null(adata, "y", gamma=1.0)
    adata.X = sparse.csr_matrix(adata.X)
    path = tmp_path / "evil.h5ad"
    for name, change in (("indptr", lambda v: v * 10**9), ("indptr", lambda v: v[::-1]), ("data", lambda v: v[:50])):
        adata.write_h5ad(path)
        with h5py.File(path, "r+") as file:
            values = change(file["X"][name][:])
            del file["X"][name]
            file["X"][name] = values
        backed = ad.read_h5ad(path, backed="r")
        refused(
            lambda backed=backed: al.tl.associate(backed),
            "the stored sparse matrix is damaged: .*; write the file again",
        )
        backed.file.close()


def test_an_object_array_is_not_unpickled(tmp_path):
    """Columns of objects are text in h5ad; a pickle among them stays bytes."""

    class Evil:
        def __reduce__(self):
            return Path.touch, (tmp_path / "executed",)

    adata = cohort()
    adata.obs["evil"] = pickle.dumps(Evil()).hex()
    adata.write_h5ad(tmp_path / "evil.h5ad")
    evil = ad.read_h5ad(tmp_path / "evil.h5ad")
    with pytest.raises(TypeError, match="phenotype='evil': must be numeric"):
        al.tl.fit_null(evil, "evil", kernel=None)
    assert not (tmp_path / "executed").exists()


def test_parquet_from_elsewhere(whole, tmp_path):
    """What its header says about pandas is not followed, and a type that it brings along is not loaded."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = tmp_path / "pairs.parquet"
    table = pa.table({"gene": ["v1", "v2"], "variant": ["a", "b"], "p_value": [0.5, 0.1]})
    table = table.replace_schema_metadata(
        {b"pandas": b'{"index_columns": ["gene"], "columns": "__import__(\'os\')", "pandas_version": "9"}'}
    )
    pq.write_table(table, path)
    adata = whole.copy()
    entry = {name: value for name, value in adata.uns["eqtl"].items() if name != "pairs"}
    entry["params"] = entry["params"] | {"output": str(path)}
    adata.uns["eqtl"] = entry
    found = al.get.eqtl(adata)
    assert list(found.columns) == ["gene", "variant", "p_value"]
    assert found["gene"].tolist() == ["v1", "v2"]
    for output in ("/dev/zero", "/dev/stdin", str(tmp_path)):  # no file, or one without an end
        adata.uns["eqtl"]["params"]["output"] = output
        with pytest.raises(FileNotFoundError, match="which is not there"):
            al.get.eqtl(adata)
