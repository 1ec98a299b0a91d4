"""Donors of two AnnData matched by name, and the places of genes and variants."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
from anndata import AnnData

import annlmm as al
from annlmm._slots.pair import Donors, gene_table, match_donors, share_chromosomes, variant_table
from annlmm._slots.positions import chromosome_name

NAMES = [f"d{i}" for i in range(8)]


def cells(labels, **obs) -> AnnData:
    frame = pd.DataFrame({"donor_id": labels, **obs}, index=[f"c{i}" for i in range(len(labels))])
    return AnnData(np.zeros((len(labels), 2), dtype=np.float32), obs=frame)


def donors(names=NAMES, **obs) -> AnnData:
    return AnnData(np.zeros((len(names), 3), dtype=np.float32), obs=pd.DataFrame(obs, index=pd.Index(list(names))))


def features(**columns) -> AnnData:
    m = len(next(iter(columns.values())))
    return AnnData(np.zeros((2, m), dtype=np.float32), var=pd.DataFrame(columns, index=[f"v{j}" for j in range(m)]))


def assert_consistent(found: Donors, expression: AnnData, genotype: AnnData, labels) -> None:
    """Whatever the order: the name of a row's donor is the name of the genotype's row."""
    labels = np.asarray(labels, dtype=object)
    assert list(genotype.obs_names[found.genotype_rows]) == list(found.names)
    assert (np.diff(found.genotype_rows) > 0).all()
    assert (np.diff(found.rows) > 0).all()
    assert [str(x) for x in labels[found.rows]] == list(found.names[found.codes])
    np.testing.assert_array_equal(np.bincount(found.codes, minlength=len(found.names)), found.counts)
    assert found.counts.min() > 0


# --- donors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_any_order(seed):
    rng = np.random.default_rng(seed)
    labels = rng.choice([*NAMES, "other"], 200)
    expression, genotype = cells(labels), donors(rng.permutation([*NAMES, "unseen", "zz"]))
    found = match_donors(expression, genotype, "donor_id")
    assert_consistent(found, expression, genotype, labels)
    assert len(found.names) == 8
    assert found.only_expression == ("other",)
    assert set(found.only_genotype) == {"unseen", "zz"}
    assert found.rows.size == (labels != "other").sum()


@pytest.mark.parametrize("kind", ["object", "string", "category", "int", "float", "Int64"])
def test_types_of_names(kind):
    numbers = [7, 3, 3, 12, 100, 7, 5, 8]
    labels = pd.Series(numbers).astype(str if kind in ("object", "string", "category") else int).astype(kind)
    expression, genotype = cells(labels.array), donors(["3", "5", "7", "8", "12", "100", "9"])
    found = match_donors(expression, genotype, "donor_id")
    assert_consistent(found, expression, genotype, numbers)
    assert list(found.names) == ["3", "5", "7", "8", "12", "100"]
    assert found.only_genotype == ("9",)


def test_unused_categories_are_no_donors():
    labels = pd.Categorical(NAMES * 2, categories=[*NAMES, "gone"])
    assert match_donors(cells(labels), donors(), "donor_id").only_expression == ()


def test_missing_labels_are_left_out_and_counted():
    labels = np.array([*NAMES, *NAMES, None, np.nan], dtype=object)
    found = match_donors(cells(labels), donors(), "donor_id")
    assert found.rows.size == 16
    assert found.n_unlabelled == 2
    assert found.report() == "8 donors matched by name (16 observations); 2 observations without a donor left out"


def test_usable_rows():
    labels = np.array(NAMES * 3, dtype=object)
    usable = labels != "d2"
    usable[0] = False
    expression, genotype = cells(labels), donors(NAMES[::-1])
    found = match_donors(expression, genotype, "donor_id", usable=usable)
    assert_consistent(found, expression, genotype, labels)
    assert found.without_rows == ("d2",)
    assert found.rows.size == 20
    assert "1 without a usable observation ('d2')" in found.report()


def test_pseudobulk_is_matched_by_its_names():
    expression, genotype = donors(["d3", "d1", "d0", "d4", "d7", "x"]), donors()
    found = match_donors(expression, genotype)
    assert list(found.names) == ["d0", "d1", "d3", "d4", "d7"]
    np.testing.assert_array_equal(found.row_of_donor, [2, 1, 0, 3, 4])
    assert found.report() == (
        "5 donors matched by name; 1 without a genotype ('x'); 3 without expression ('d2', 'd5', 'd6')"
    )
    with pytest.raises(ValueError, match="up to 2 rows of expression each, not one"):
        _ = match_donors(cells(NAMES * 2), donors(), "donor_id").row_of_donor


# anndata says so itself, when the object is made
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
def test_duplicates():
    message = "genotype.obs_names: 2 names occur more than once ('d0', 'd1'); a donor has one row"
    with pytest.raises(ValueError, match=re.escape(message)):
        match_donors(cells(NAMES), donors([*NAMES, "d0", "d1"]), "donor_id")
    with pytest.raises(ValueError, match="without donor_key= each row is a donor; name the column of donors"):
        match_donors(donors([*NAMES, "d0"]), donors())


def test_too_few_names_the_numbers():
    message = (
        "genotype, expression: 3 donors are in both, at least 5 are needed; expression.obs['donor_id'] has 4 "
        "('d0', 'd1', 'd2', …), genotype.obs_names 8 ('d0', 'd1', 'd2', …)"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        match_donors(cells(["d0", "d1", "d2", "d0", "y"]), donors(), "donor_id")
    usable = np.arange(8) < 4
    with pytest.raises(ValueError, match=r"4 donors are in both \(4 more have no usable observation\)"):
        match_donors(cells(NAMES), donors(), "donor_id", usable=usable)
    assert match_donors(cells(NAMES[:4]), donors(), "donor_id", minimum=4).counts.size == 4


@pytest.mark.parametrize(
    ("labels", "names", "remedy"),
    [
        ([f"{x} " for x in NAMES], NAMES, "without spaces around them, expression's names would match"),
        ([x.upper() for x in NAMES], NAMES, "in the same case, expression's names would match"),
        (["007", "012", "020"], ["7", "12", "20"], "without leading zeros, expression's names would match"),
        (NAMES, [f"{x}_{x}" for x in NAMES], "without what follows the last '_', genotype's names would match"),
        (NAMES, [f"0_{x}" for x in NAMES], "without what precedes the first '_', genotype's names would match"),
        (["a-1", "b-1"], ["a-2", "b-2"], "without what follows the last '-', both sides' names would match"),
        ([3, 4, 5], ["donor3", "donor4", "donor5"], "without what precedes the first digit, genotype's names"),
        (["p", "q"], ["r", "s"], "; rename one of them"),
    ],
)
def test_no_overlap_says_how_to_rename(labels, names, remedy):
    with pytest.raises(ValueError, match=r"no donor is in both; expression.obs\['donor_id'\] has") as error:
        match_donors(cells(labels), donors(names), "donor_id")
    assert remedy in str(error.value)
    assert repr(str(labels[0])) in str(error.value)
    assert repr(names[0]) in str(error.value)


def test_no_overlap_finds_the_column_that_matches():
    with pytest.raises(ValueError, match=re.escape("genotype.obs_names = genotype.obs['iid'].astype(str)")):
        match_donors(cells(NAMES), donors([f"g{i}x" for i in range(8)], iid=NAMES), "donor_id")
    with pytest.raises(ValueError, match="pass donor_key='donor_id'"):
        match_donors(cells(NAMES * 2), donors())
    transposed = donors().T
    transposed.obs_names = ["r1", "r2", "r3"]
    with pytest.raises(ValueError, match="genotype must be donors × variants, pass genotype.T"):
        match_donors(cells(NAMES), transposed, "donor_id")


def test_unknown_column_and_no_labels():
    with pytest.raises(KeyError, match="donor_key='donor': no such column in expression.obs; did you mean 'donor_id'"):
        match_donors(cells(NAMES), donors(), "donor")
    with pytest.raises(ValueError, match="donor_key='donor_id': all 3 values are missing"):
        match_donors(cells([None, None, None]), donors(), "donor_id")
    with pytest.raises(TypeError, match="genotype: must be an AnnData, received DataFrame"):
        match_donors(cells(NAMES), pd.DataFrame(), "donor_id")


def test_the_simulated_pair():
    expression, genotype = al.datasets.sc_eqtl(12, 6, 5, n_vars=40, n_eqtl=2, n_secondary=0, n_interaction=0)
    rng = np.random.default_rng(1)
    genotype = genotype[rng.permutation(12)].copy()
    expression = expression[rng.permutation(expression.n_obs)].copy()
    found = match_donors(expression, genotype, "donor_id")
    assert_consistent(found, expression, genotype, expression.obs["donor_id"])


# --- positions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("chr1", "1"),
        ("Chromosome 2", "2"),
        (3, "3"),
        ("4.0", "4"),
        ("chrM", "MT"),
        ("mt", "MT"),
        ("x", "X"),
        ("chrY", "Y"),
        ("GL000220.1", "GL000220.1"),
        ("chr", "chr"),
        (0, ""),
        (".", ""),
        (np.nan, ""),
        (-9, ""),
    ],
)
def test_names_of_chromosomes(text, name):
    assert chromosome_name(text) == name


@pytest.mark.parametrize("kind", [None, "category", "string"])
def test_variants(kind):
    chrom = pd.Series(["chr2", "1", None, "chr2", "0"], dtype=object)
    adata = features(
        chrom=(chrom if kind is None else chrom.astype(kind)).array,
        pos=[10, -9, 5, 0, 7],
        a0=["A", "C", "G", "T", "A"],
        a1=pd.Categorical(["C", "A", None, "G", "G"]),
    )
    table = variant_table(adata)
    assert table.chromosomes == ("2", "1")
    assert table.chrom.tolist() == [0, 1, -1, 0, -1]
    assert table.pos.tolist() == [10, -1, 5, 0, 7]
    assert table.placed.tolist() == [True, False, False, True, False]
    assert list(table.a0) == ["A", "C", "G", "T", "A"]
    assert list(table.a1) == ["C", "A", "", "G", "G"]


def test_missing_positions_are_unknown():
    assert variant_table(features(chrom=["1", "1"], pos=[np.nan, 4.0])).pos.tolist() == [-1, 4]
    table = variant_table(features(chrom=["1", "1"], pos=pd.array([None, 4], dtype="Int64")))
    assert table.pos.tolist() == [-1, 4]
    assert table.a0 is None
    assert table.a1 is None


def test_genes():
    adata = features(
        chrom=["1", "1", "X", "X"], start=[100, 200, 5, -9], end=[150, 260, 9, 70], strand=["+", "-", ".", "-"]
    )
    table = gene_table(adata)
    assert table.strand.tolist() == [1, -1, 0, -1]
    assert table.tss.tolist() == [100, 260, 5, 70]
    # Upstream of a gene on the reverse strand are larger positions.
    assert table.distance(np.array([0, 0, 1, 1]), np.array([90, 130, 300, 250])).tolist() == [-10, 30, -40, 10]
    assert gene_table(features(chrom=["1"], start=[3])).tss.tolist() == [3]
    codes = features(chrom=["1", "1", "1"], start=[1, 2, 3], end=[4, 5, 6], strand=[1, -1, np.nan])
    assert gene_table(codes).tss.tolist() == [1, 5, 3]


def test_bad_tables():
    with pytest.raises(KeyError, match="genotype.var has no column 'pos', which cis windows need .*mean 'position'"):
        variant_table(features(chrom=["1"], position=[1]))
    with pytest.raises(KeyError, match="expression.var has no column 'chrom'.*window=None to test all pairs"):
        gene_table(features(start=[1]))
    with pytest.raises(KeyError, match="no column 'end', where they begin"):
        gene_table(features(chrom=["1", "1"], start=[1, 2], strand=["+", "-"]))
    with pytest.raises(ValueError, match="'start' is beyond 'end' in 1 genes, e.g. 'v1'"):
        gene_table(features(chrom=["1", "1"], start=[1, 8], end=[2, 4]))
    with pytest.raises(ValueError, match=r"\['strand'\]: must be '\+', '-' or missing, received 'fwd'"):
        gene_table(features(chrom=["1"], start=[1], strand=["fwd"]))
    for text in (["12"], ["nan"], pd.Categorical(["12"]), pd.array(["12"], dtype="string")):
        with pytest.raises(TypeError, match=r"genotype.var\['pos'\]: must be numeric, received text .*pd.to_numeric\("):
            variant_table(features(chrom=["1"], pos=text))
    with pytest.raises(ValueError, match=r"genotype.var\['pos'\]: holds fractions"):
        variant_table(features(chrom=["1"], pos=[1.5]))
    with pytest.raises(ValueError, match="no variant has both a chromosome and a position; window=None needs none"):
        variant_table(features(chrom=["0", "1"], pos=[1, -9]))
    adata = features(chrom=["1", "1"], pos=[1, 2])
    adata.var_names = ["v", "v"]
    with pytest.raises(ValueError, match="genotype.var_names: names must differ, 'v' occurs more than once"):
        variant_table(adata)


def test_positions_are_optional_for_all_pairs():
    table = variant_table(features(a0=["A"], a1=["C"]), positions=False)
    assert not table.placed.any()
    assert gene_table(features(symbol=["x"]), positions=False).tss.tolist() == [-1]


def test_chromosomes_are_shared():
    genes = gene_table(features(chrom=["chr1", "chrX", "chrM", "chr7", None], start=[1, 2, 3, 4, 5]))
    variants = variant_table(features(chrom=["26", "23", "1", "3", "1"], pos=[1, 2, 3, 4, -9]))
    genes, variants, report = share_chromosomes(genes, variants)
    assert genes.chromosomes == variants.chromosomes == ("MT", "X", "1", "3", "7")
    assert genes.chrom.tolist() == [2, 1, 0, 4, -1]
    assert variants.chrom.tolist() == [0, 1, 2, 3, 2]
    assert report == (
        "1 genes without a position; 1 genes on chromosomes that the other side lacks; "
        "1 variants without a position; 1 variants on chromosomes that the other side lacks; "
        "4 genes without a strand, taken for '+'"
    )


def test_genes_without_a_strand_are_told():
    variants = variant_table(features(chrom=["1"], pos=[1]))
    places = {"chrom": ["1", "1", "1", "1"], "start": [1, 2, 3, np.nan], "end": [9, 9, 9, 9]}
    for strand, count in (
        (["+", "-", "+", None], 0),
        (["+", ".", None, None], 2),
        (pd.Categorical([None, None, "-", "+"]), 2),
        ([1.0, np.nan, -1.0, 1.0], 1),
    ):
        report = share_chromosomes(gene_table(features(strand=strand, **places)), variants)[2]
        told = [part for part in report.split("; ") if "strand" in part]
        assert told == ([f"{count} genes without a strand, taken for '+'"] if count else [])


def test_numbers_that_both_sides_have_stay():
    """Chromosome 23 of a zebrafish is no X."""
    genes = gene_table(features(chrom=["23", "X"], start=[1, 2]))
    variants = variant_table(features(chrom=["23", "1"], pos=[1, 2]))
    genes, variants, _ = share_chromosomes(genes, variants)
    assert genes.chromosomes[genes.chrom[0]] == variants.chromosomes[variants.chrom[0]] == "23"


def test_no_chromosome_in_common():
    genes, variants = gene_table(features(chrom=["chr1"], start=[1])), variant_table(features(chrom=["2"], pos=[1]))
    with pytest.raises(ValueError, match=r"no chromosome is in both \('1' and '2'; 'chr1' and '1' are the same\)"):
        share_chromosomes(genes, variants)
