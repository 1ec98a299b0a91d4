"""Readers against files that the tests write byte by byte, and against GEMMA's mouse data (realdata)."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
import sys
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from bed_reader import to_bed
from helpers import messages

from annlmm.io import read_bimbam, read_gemma_kinship, read_plink

# ----------------------------------------------------------------------------------------------------------- PLINK

# Format: 2 bits per donor, the first donor in the lowest: 00 two copies of allele 1, 10 one, 11 none, 01 missing.
CODE = {2.0: 0b00, 1.0: 0b10, 0.0: 0b11}


def pack(dosages: np.ndarray) -> bytes:
    """The .bed of `dosages` (donors × variants, copies of allele 1), by the letter of the format."""
    content = bytearray([0x6C, 0x1B, 0x01])
    for column in dosages.T:
        for start in range(0, len(column), 4):
            byte = 0
            for place, value in enumerate(column[start : start + 4]):
                byte |= (0b01 if np.isnan(value) else CODE[float(value)]) << (2 * place)
            content.append(byte)
    return bytes(content)


def simulate(n: int, m: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    dosages = rng.integers(0, 3, (n, m)).astype(float)
    dosages[rng.random((n, m)) < 0.2] = np.nan
    return dosages


def fam_lines(n: int, sep: str = " ") -> str:
    return "".join(sep.join([f"f{i}", f"i{i}", "0", "0", str(i % 3), f"{i}.5"]) + "\n" for i in range(n))


def bim_lines(m: int, sep: str = "\t") -> str:
    return "".join(sep.join([f"{1 + j // 2}", f"rs{j}", f"0.{j}", f"{1000 + j}", "A", "G"]) + "\n" for j in range(m))


def fileset(
    folder: Path,
    dosages: np.ndarray | None = None,
    *,
    bed: bytes | None = None,
    bim: str | None = None,
    fam: str | None = None,
    stem: str = "toy",
) -> Path:
    """Write a fileset; whatever is not given fits 3 donors and 2 variants, or `dosages`."""
    if dosages is None:
        dosages = np.array([[2.0, 0.0], [1.0, np.nan], [0.0, 1.0]])
    n, m = dosages.shape
    (folder / f"{stem}.bed").write_bytes(pack(dosages) if bed is None else bed)
    (folder / f"{stem}.bim").write_text(bim_lines(m) if bim is None else bim, newline="")
    (folder / f"{stem}.fam").write_text(fam_lines(n) if fam is None else fam, newline="")
    return folder / stem


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 8, 9, 130])
@pytest.mark.parametrize("count_a1", [True, False])
def test_plink_decodes_hand_packed_bytes(tmp_path, n, count_a1):
    dosages = simulate(n, 7, seed=n)
    adata = read_plink(fileset(tmp_path, dosages), count_a1=count_a1)
    expected = dosages if count_a1 else 2 - dosages
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, expected)


@pytest.mark.parametrize("count_a1", [True, False])
def test_plink_reads_what_bed_reader_writes(tmp_path, count_a1):
    dosages = simulate(11, 6)
    properties = {
        "fid": [f"f{i}" for i in range(11)],
        "iid": [f"i{i}" for i in range(11)],
        "sex": [1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2],
        "pheno": [str(i) for i in range(11)],
        "chromosome": ["1", "1", "2", "2", "X", "X"],
        "sid": [f"rs{j}" for j in range(6)],
        "cm_position": [0.5 * j for j in range(6)],
        "bp_position": [10 * (j + 1) for j in range(6)],
        "allele_1": ["A", "C", "G", "T", "A", "AT"],
        "allele_2": ["G", "G", "A", "A", "C", "A"],
    }
    to_bed(tmp_path / "toy.bed", dosages, properties=properties, count_A1=count_a1)
    adata = read_plink(tmp_path / "toy", count_a1=count_a1)
    np.testing.assert_array_equal(adata.X, dosages)
    counted, other = ("allele_1", "allele_2") if count_a1 else ("allele_2", "allele_1")
    assert adata.var["a1"].tolist() == properties[counted]
    assert adata.var["a0"].tolist() == properties[other]
    assert adata.var_names.tolist() == properties["sid"]
    assert adata.var["chrom"].tolist() == properties["chromosome"]
    assert adata.var["pos"].tolist() == properties["bp_position"]
    assert adata.var["cm"].tolist() == properties["cm_position"]
    assert adata.obs["phenotype"].tolist() == list(range(11))


def test_plink_donor_lost_from_the_fam(tmp_path):
    """149 donors take as many bytes as 150: the bits beyond the last donor tell."""
    rng = np.random.default_rng(0)
    to_bed(tmp_path / "toy.bed", rng.integers(0, 3, (150, 40)).astype(float))
    assert read_plink(tmp_path / "toy").shape == (150, 40)
    fam = (tmp_path / "toy.fam").read_text().splitlines(keepends=True)
    (tmp_path / "toy.fam").write_text("".join(fam[:70] + fam[71:]))
    with pytest.raises(
        ValueError,
        match=r"of the first 40 variants of toy.bed hold calls of more donors than the 149 of toy.fam; was a line",
    ):
        read_plink(tmp_path / "toy")


def test_plink_cases_and_controls_with_zeros_are_told(tmp_path):
    for values, told in ((["1", "2", "0", "-9"], True), (["1", "2", "-9", "1"], False), (["0", "1", "2", "3"], False)):
        to_bed(tmp_path / "toy.bed", np.zeros((4, 2)), properties={"pheno": values})
        with messages("warning") as seen:
            read_plink(tmp_path / "toy")
        assert any("is 0, 1 or 2; where 1 and 2 are controls and cases" in line for line in seen) == told


def test_plink_fields(tmp_path):
    fam = "f1 ann 0 0 2 1.5\nf1\tbob ann dad 1 -9\nf2 cem 0 0 0 NA\nf2 dee 0 0 M -9.0\n"
    bim = "10 rs2 0 5 A G\n2 rs1 1.5 7 T G\n10 rs3 0 -9 ATT A\n"
    adata = read_plink(fileset(tmp_path, simulate(4, 3), bim=bim, fam=fam))
    assert list(adata.obs.columns) == ["fid", "iid", "father", "mother", "sex", "phenotype"]
    assert adata.obs_names.tolist() == ["ann", "bob", "cem", "dee"]
    assert adata.obs["fid"].tolist() == ["f1", "f1", "f2", "f2"]
    assert adata.obs["iid"].tolist() == ["ann", "bob", "cem", "dee"]
    assert adata.obs["father"].tolist() == ["0", "ann", "0", "0"]
    assert adata.obs["mother"].tolist() == ["0", "dad", "0", "0"]
    assert adata.obs["sex"].cat.categories.tolist() == ["female", "male"]
    assert adata.obs["sex"].cat.codes.tolist() == [0, 1, -1, 1]
    np.testing.assert_array_equal(adata.obs["phenotype"], [1.5, np.nan, np.nan, np.nan])
    assert list(adata.var.columns) == ["chrom", "pos", "cm", "a0", "a1"]
    assert adata.var["chrom"].cat.categories.tolist() == ["10", "2"], "order of the file"
    assert adata.var["pos"].dtype == np.int64
    assert adata.var["pos"].tolist() == [5, 7, -9]
    assert adata.var["cm"].tolist() == [0.0, 1.5, 0.0]
    assert (adata.var["a0"] != adata.var["a1"]).all(), "both allele columns share their categories"


def test_plink_missing_phenotype(tmp_path):
    fam = "f a 0 0 1 -9 7 0\nf b 0 0 1 2 NA 1\nf c 0 0 1 nan 9 2\n"
    path = fileset(tmp_path, simulate(3, 1), fam=fam)
    adata = read_plink(path)
    np.testing.assert_array_equal(adata.obs["phenotype"], [np.nan, 2, np.nan])
    np.testing.assert_array_equal(adata.obs["phenotype_2"], [7, np.nan, 9])
    np.testing.assert_array_equal(adata.obs["phenotype_3"], [0, 1, 2])
    np.testing.assert_array_equal(read_plink(path, missing_phenotype=None).obs["phenotype"], [-9, 2, np.nan])
    np.testing.assert_array_equal(read_plink(path, missing_phenotype=9).obs["phenotype_2"], [7, np.nan, np.nan])


def test_plink_phenotype_names(tmp_path):
    path = fileset(tmp_path, simulate(2, 1), fam="f a 0 0 1 1 2\nf b 0 0 1 3 4\n")
    assert list(read_plink(path, fam_phenotype="trait").obs.columns[5:]) == ["trait", "trait_2"]
    assert list(read_plink(path, fam_phenotype=["cd8", "mch"]).obs.columns[5:]) == ["cd8", "mch"]
    with pytest.raises(ValueError, match="`fam_phenotype` names 1 columns, the .fam has 2 phenotypes"):
        read_plink(path, fam_phenotype=["cd8"])
    with pytest.raises(ValueError, match="`fam_phenotype` must be distinct and none of fid"):
        read_plink(path, fam_phenotype=["sex", "mch"])
    with pytest.raises(TypeError, match="`fam_phenotype` must be a string or a list of strings"):
        read_plink(path, fam_phenotype=[1, 2])


@pytest.mark.parametrize("sep", ["\t", " ", "  \t "])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_plink_separators_and_line_ends(tmp_path, sep, end):
    dosages = simulate(5, 4)
    bim, fam = bim_lines(4, sep).replace("\n", end), fam_lines(5, sep).replace("\n", end)
    adata = read_plink(fileset(tmp_path, dosages, bim=bim + end, fam=fam))
    np.testing.assert_array_equal(adata.X, dosages)
    assert adata.obs["phenotype"].tolist() == [0.5, 1.5, 2.5, 3.5, 4.5]
    assert adata.var["a0"].tolist() == ["G"] * 4


def test_plink_paths(tmp_path):
    dosages = simulate(5, 4)
    for stem in ("toy", "chr1.filtered"):
        path = fileset(tmp_path, dosages, stem=stem)
        for given in (path, str(path), path.parent / f"{stem}.bed"):
            np.testing.assert_array_equal(read_plink(given).X, dosages)
    (tmp_path / "elsewhere").mkdir()
    for suffix in ("bim", "fam"):
        (tmp_path / "elsewhere" / f"x.{suffix}.gz").write_bytes(
            gzip.compress((tmp_path / f"toy.{suffix}").read_bytes())
        )
        (tmp_path / f"toy.{suffix}").unlink()
    adata = read_plink(
        tmp_path / "toy", bim=tmp_path / "elsewhere" / "x.bim.gz", fam=tmp_path / "elsewhere" / "x.fam.gz"
    )
    np.testing.assert_array_equal(adata.X, dosages)


@pytest.mark.parametrize("suffix", ["bed", "bim", "fam"])
def test_plink_missing_file(tmp_path, suffix):
    path = fileset(tmp_path)
    (tmp_path / f"toy.{suffix}").unlink()
    name = {"bed": "path"}.get(suffix, suffix)
    with pytest.raises(FileNotFoundError, match=rf"`{name}`: .*toy\.{suffix}' does not exist"):
        read_plink(path)
    (tmp_path / f"toy.{suffix}").mkdir()
    with pytest.raises(FileNotFoundError, match="is a folder"):
        read_plink(path)


GOOD = pack(np.array([[2.0, 0.0], [1.0, np.nan], [0.0, 1.0]]))


@pytest.mark.parametrize(
    ("bed", "message"),
    [
        (GOOD[:-1], "must have 5 bytes for 3 donors (toy.fam) and 2 variants (toy.bim), found 4: it is truncated"),
        (GOOD + b"\x00", "must have 5 bytes for 3 donors (toy.fam) and 2 variants (toy.bim), found 6: it is too long"),
        (b"\x6c\x1b\x01", "must have 5 bytes for 3 donors (toy.fam) and 2 variants (toy.bim), found 3"),
        (b"\x6c\x1c" + GOOD[2:], "must begin with the bytes 6c 1b, found 6c 1c"),
        (b"PGEN" + GOOD[4:], "must begin with the bytes 6c 1b, found 50 47"),
        (b"", "must begin with the bytes 6c 1b, found nothing"),
        (b"\x6c\x1b\x00" + GOOD[3:], "must be variant-major (third byte 01), found 00"),
        (b"\x6c\x1b", "must be variant-major (third byte 01), found nothing"),
    ],
)
def test_plink_damaged_bed_is_refused_before_it_is_opened(tmp_path, monkeypatch, bed, message):
    path = fileset(tmp_path, bed=bed)

    def opened(*args, **kwargs):
        raise AssertionError("the .bed was opened for reading")

    monkeypatch.setattr("bed_reader.open_bed", opened)
    with pytest.raises(ValueError, match=re.escape(message)):
        read_plink(path)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"bim": "1 rs0 0 5 A G\n1 rs1 0 5 A\n"}, "`bim`: line 2 of toy.bim has 5 fields, the lines before have 6"),
        ({"bim": "1 rs0 5 A G\n"}, "`bim`: toy.bim must have 6 columns (chrom, id, cm, pos, allele 1, allele 2)"),
        ({"bim": "1 rs0 0 5 A G\n1 rs1 0 1e6 A G\n"}, "`bim`: position in line 2 of toy.bim must be an integer"),
        ({"bim": f"1 rs0 0 5 A G\n1 rs1 0 {10**30} A G\n"}, "`bim`: position in line 2 of toy.bim must be an integer"),
        ({"bim": "1 rs0 x 5 A G\n1 rs1 0 1 A G\n"}, "`bim`: genetic position in line 1 of toy.bim must be a finite"),
        ({"bim": "1 rs0 NA 5 A G\n1 rs1 0 1 A G\n"}, "`bim`: genetic position in line 1 of toy.bim must be a finite"),
        ({"bim": "1 rs0 0 5 A G\n\n1 rs1 0 5 A G\n"}, "`bim`: line 2 of toy.bim is blank"),
        ({"bim": ""}, "`bim`: toy.bim is empty"),
        ({"fam": "f a 0 0 1\nf b 0 0 1\nf c 0 0 1\n"}, "`fam`: toy.fam must have at least 6 columns"),
        ({"fam": "f a 0 0 1 x\nf b 0 0 1 2\n"}, "`fam`: phenotype 'phenotype' in line 1 of toy.fam must be a finite"),
        ({"fam": "f a 0 0 1 1\nf b 0 0 1 inf\n"}, "in line 2 of toy.fam must be a finite number or NA, got 'inf'"),
        ({"fam": "f a 0 0 1 1\nf b 0 0 1 2\nf a 0 0 1 3\n"}, "`fam`: toy.fam names a donor twice (FID_IID 'f_a')"),
    ],
)
def test_plink_malformed_tables(tmp_path, files, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_plink(fileset(tmp_path, **files))


def test_plink_binary_table_and_damaged_gzip(tmp_path):
    path = fileset(tmp_path)
    (tmp_path / "toy.fam").write_bytes(b"\xff\xfe\x00f a")
    with pytest.raises(ValueError, match=r"`fam`: toy\.fam is not a text file"):
        read_plink(path)
    (tmp_path / "toy.fam").write_bytes(gzip.compress(fam_lines(300).encode())[:-40])
    with pytest.raises(ValueError, match=r"`fam`: toy\.fam is a damaged gzip file"):
        read_plink(path)


def test_plink_repeated_donors(tmp_path):
    adata = read_plink(fileset(tmp_path, simulate(3, 1), fam="f a 0 0 1 1\ng a 0 0 1 2\ng b 0 0 1 3\n"))
    assert adata.obs_names.tolist() == ["f_a", "g_a", "g_b"]


def test_plink_repeated_and_unnamed_variants(tmp_path):
    bim = "1 rs1 0 5 A G\n1 rs1 0 6 A G\n1 . 0 7 T C\n2 . 0 7 T C\n2 . 0 7 T C\n"
    path = fileset(tmp_path, simulate(3, 5), bim=bim)
    with pytest.warns(UserWarning, match=r"`bim`: 2 variant ids occur more than once \('rs1', '2:7:C:T'\)") as caught:
        adata = read_plink(path)
    assert adata.var_names.tolist() == ["rs1", "rs1-1", "1:7:C:T", "2:7:C:T", "2:7:C:T-1"]
    assert caught[0].filename == __file__, "the warning points at the caller"


def test_plink_arguments(tmp_path):
    path = fileset(tmp_path)
    assert read_plink(path, dtype="float64").X.dtype == np.float64
    with pytest.raises(ValueError, match=r"`dtype` must be float32 or float64 \(a missing call is NaN\), got int8"):
        read_plink(path, dtype="int8")
    with pytest.raises(TypeError, match="`dtype` must be float32 or float64, got 'dosage'"):
        read_plink(path, dtype="dosage")
    with pytest.raises(TypeError, match="`count_a1` must be True or False, got 'A'"):
        read_plink(path, count_a1="A")
    with pytest.raises(TypeError, match="`path` must be a path"):
        read_plink(3)
    with pytest.raises(ValueError, match="`path`: toy.bed.gz is compressed"):
        read_plink(tmp_path / "toy.bed.gz")


def test_plink_without_bed_reader(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bed_reader", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'annlmm[genotype]'")):
        read_plink(fileset(tmp_path))


@pytest.mark.parametrize("form", ["h5ad", "zarr"])
def test_plink_survives_writing(tmp_path, form):
    adata = read_plink(fileset(tmp_path, simulate(6, 5)))
    x, obs, var = adata.X.copy(), adata.obs.astype(str), adata.var.astype(str)
    getattr(adata, f"write_{form}")(tmp_path / f"toy.{form}")
    back = getattr(ad, f"read_{form}")(tmp_path / f"toy.{form}")
    np.testing.assert_array_equal(back.X, x)
    pd.testing.assert_frame_equal(back.obs.astype(str), obs, check_index_type=False)
    pd.testing.assert_frame_equal(back.var.astype(str), var, check_index_type=False)


def test_import_is_light():
    code = (
        "import sys, annlmm.io, annlmm.datasets; print(sorted({'scanpy', 'matplotlib', 'bed_reader'} & {*sys.modules}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------------------------------------------------- BIMBAM

GENO = [["rs1", "A", "G", "0.1", "2", "NA"], ["rs2", "C", "T", "1", "0", "1.75"]]
DOSAGES = np.array([[0.1, 1], [2, 0], [np.nan, 1.75]])


def write(path: Path, rows: list[list[str]], sep: str = ", ", *, zipped: bool = False) -> Path:
    text = "".join(sep.join(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if zipped else text.encode())
    return path


@pytest.mark.parametrize("sep", [", ", ",", " ", "\t", " ,\t"])
@pytest.mark.parametrize("zipped", [True, False])
def test_bimbam_separators(tmp_path, sep, zipped):
    adata = read_bimbam(
        write(tmp_path / "geno", GENO, sep, zipped=zipped),
        write(tmp_path / "pheno", [["1.5", "NA"], ["NA", "-9"], ["0.5", "3"]], sep, zipped=zipped),
        write(tmp_path / "anno", [["rs2", "200", "X", "0.2"], ["rs9", "9", "9", "9"], ["rs1", "100", "2", "NA"]], sep),
    )
    assert adata.X.dtype == np.float32
    np.testing.assert_array_equal(adata.X, DOSAGES.astype(np.float32))
    assert adata.obs_names.tolist() == ["0", "1", "2"]
    np.testing.assert_array_equal(adata.obs["phenotype_1"], [1.5, np.nan, 0.5])
    np.testing.assert_array_equal(adata.obs["phenotype_2"], [np.nan, -9, 3])
    assert adata.var_names.tolist() == ["rs1", "rs2"]
    assert adata.var["a1"].tolist() == ["A", "C"], "column 2 is the counted allele"
    assert adata.var["a0"].tolist() == ["G", "T"]
    assert adata.var["chrom"].tolist() == ["2", "X"]
    assert adata.var["chrom"].cat.categories.tolist() == ["2", "X"]
    assert adata.var["pos"].tolist() == [100, 200]
    np.testing.assert_array_equal(adata.var["cm"], [np.nan, 0.2])


def test_bimbam_many_variants_stay_with_their_names(tmp_path):
    rng = np.random.default_rng(0)
    dosages = rng.integers(0, 2001, (5, 40)) / 1000
    rows = [[f"rs{j}", "A", "C", *map(str, dosages[:, j])] for j in range(40)]
    adata = read_bimbam(write(tmp_path / "geno", rows), dtype="float64")
    assert list(adata.obs.columns) == []
    assert list(adata.var.columns) == ["a0", "a1"]
    pd.testing.assert_frame_equal(
        adata.to_df(),
        pd.DataFrame(dosages, index=[str(i) for i in range(5)], columns=[f"rs{j}" for j in range(40)]),
        check_index_type=False,
        check_column_type=False,
    )


def test_bimbam_unknown_places(tmp_path):
    adata = read_bimbam(
        write(tmp_path / "geno", GENO), annotation=write(tmp_path / "anno", [["rs1", "NA", "NA"], ["rs2", "7", "1"]])
    )
    assert adata.var["pos"].tolist() == [-9, 7], "GEMMA's code"
    assert adata.var["pos"].dtype == np.int64
    assert adata.var["chrom"].cat.codes.tolist() == [-1, 0]
    assert "cm" not in adata.var


def test_bimbam_names(tmp_path):
    path = write(tmp_path / "geno", GENO)
    assert read_bimbam(path, obs_names=["a", "b", "c"]).obs_names.tolist() == ["a", "b", "c"]
    assert read_bimbam(path, obs_names=pd.Index(["a", "b", "c"])).obs_names.tolist() == ["a", "b", "c"]
    with pytest.raises(ValueError, match="`obs_names` has 2 names, `genotypes` has 3 donors"):
        read_bimbam(path, obs_names=["a", "b"])
    with pytest.raises(ValueError, match="`obs_names` must be unique, got 'a' twice"):
        read_bimbam(path, obs_names=["a", "b", "a"])
    with pytest.raises(TypeError, match=r"`obs_names` must be strings, got 1 \(int\)"):
        read_bimbam(path, obs_names=["a", 1, "b"])
    with pytest.raises(TypeError, match="`obs_names` must be a list of strings, got the string 'abc'"):
        read_bimbam(path, obs_names="abc")


def test_bimbam_repeated_variants(tmp_path):
    path = write(tmp_path / "geno", [GENO[0], GENO[1], GENO[0]])
    anno = write(tmp_path / "anno", [["rs1", "1", "1"], ["rs2", "2", "1"], ["rs1", "1", "1"]])
    with pytest.warns(UserWarning, match=r"`genotypes`: 1 variant ids occur more than once \('rs1'\)"):
        adata = read_bimbam(path, annotation=anno)
    assert adata.var_names.tolist() == ["rs1", "rs2", "rs1-1"]
    assert adata.var["pos"].tolist() == [1, 2, 1]
    write(path, GENO)
    write(anno, [["rs1", "1", "1"], ["rs2", "2", "1"], ["rs1", "5", "1"]])
    with pytest.raises(ValueError, match=r"places 'rs1' twice: 1:1 \(line 1\) and 1:5 \(line 3\)"):
        read_bimbam(path, annotation=anno)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["rs2", "C", "T", "1", "0"], "`genotypes`: line 2 of geno (rs2) has 2 dosages, the lines before have 3"),
        (["rs2", "C", "T", "1", "0", "?"], "`genotypes`: dosage 3 in line 2 of geno must be a finite number or NA"),
        (["rs2", "C", "T", "inf", "0", "1"], "`genotypes`: dosage 1 in line 2 of geno must be a finite number or NA"),
        (["rs2", "C", "T", "1", "-9", "1"], "(rs2) is -9, outside `dosage_range` (0, 2). Write a missing call as NA"),
        (["rs2", "C", "T", "1", "3", "1"], "dosage 2 in line 2 of geno (rs2) is 3, outside `dosage_range`"),
        (["rs2", "C", "T"], "`genotypes`: line 2 of geno must hold id, two alleles and at least one dosage"),
    ],
)
def test_bimbam_malformed_genotypes(tmp_path, row, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_bimbam(write(tmp_path / "geno", [GENO[0], row]))


def test_bimbam_dosage_range(tmp_path):
    path = write(tmp_path / "geno", [["rs1", "A", "G", "-1.5", "3", "NA"]])
    np.testing.assert_array_equal(read_bimbam(path, dosage_range=None).X[:, 0], [-1.5, 3, np.nan])
    np.testing.assert_array_equal(read_bimbam(path, dosage_range=(-2, 3)).X[:, 0], [-1.5, 3, np.nan])
    with pytest.raises(TypeError, match=r"`dosage_range` must be a pair \(low, high\) or None"):
        read_bimbam(path, dosage_range=2)
    with pytest.raises(ValueError, match="with low < high"):
        read_bimbam(path, dosage_range=(2, 0))


def test_bimbam_other_files(tmp_path):
    geno = write(tmp_path / "geno", GENO)
    with pytest.raises(ValueError, match="`phenotypes`: pheno has 2 lines, `genotypes` has 3 donors"):
        read_bimbam(geno, write(tmp_path / "pheno", [["1"], ["2"]]))
    with pytest.raises(ValueError, match="`phenotypes`: column 1 in line 1 of pheno must be a finite number or NA"):
        read_bimbam(geno, write(tmp_path / "pheno", [["CD8"], ["2"], ["3"]]))
    with pytest.raises(ValueError, match="`annotation`: 1 of 2 variants of `genotypes` are not in anno, the first is"):
        read_bimbam(geno, annotation=write(tmp_path / "anno", [["rs1", "1", "1"]]))
    with pytest.raises(ValueError, match="`annotation`: anno must have 3 to 4 columns"):
        read_bimbam(geno, annotation=write(tmp_path / "anno", [["rs1", "1"]]))
    with pytest.raises(ValueError, match=r"`annotation`: position in line 2 of anno must be an integer, got '1\.5'"):
        read_bimbam(geno, annotation=write(tmp_path / "anno", [["rs1", "1", "1"], ["rs2", "1.5", "1"]]))
    with pytest.raises(ValueError, match="`genotypes`: empty is empty"):
        read_bimbam(write(tmp_path / "empty", []))
    for argument in ("genotypes", "phenotypes", "annotation"):
        files = {"genotypes": geno} | {argument: tmp_path / "nowhere"}
        with pytest.raises(FileNotFoundError, match=f"`{argument}`: .*nowhere' does not exist"):
            read_bimbam(**files)


# ---------------------------------------------------------------------------------------------------- GEMMA kinship


@pytest.mark.parametrize("zipped", [True, False])
def test_kinship(tmp_path, zipped):
    rng = np.random.default_rng(0)
    z = rng.standard_normal((6, 9))
    k = z @ z.T / 9
    rows = [[f"{value:.10g}" for value in row] for row in k]
    path = write(tmp_path / "toy.cXX.txt", rows, "\t", zipped=zipped)
    frame = read_gemma_kinship(path)
    np.testing.assert_allclose(frame, k, rtol=5e-10)  # half a unit of the tenth digit
    np.testing.assert_array_equal(frame, frame.T)
    assert frame.index.tolist() == frame.columns.tolist() == list("012345")
    named = read_gemma_kinship(path, obs_names=list("abcdef"))
    assert named.index.tolist() == named.columns.tolist() == list("abcdef")
    with pytest.raises(ValueError, match="`obs_names` has 5 names, `path` has 6 donors"):
        read_gemma_kinship(path, obs_names=list("abcde"))


def test_kinship_last_digit_is_averaged(tmp_path):
    path = write(tmp_path / "k", [["1", "0.1234567891"], ["0.1234567893", "1"]])
    assert read_gemma_kinship(path).iloc[0, 1] == pytest.approx(0.1234567892, rel=1e-14)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["1", "0.5"], ["0.4", "1"]], "must be symmetric, found 0.5 in row 1, column 2 and 0.4 in row 2, column 1"),
        ([["1", "0.5"]], "must be square, found 1 lines of 2 numbers"),
        ([["1", "0.5"], ["0.5"]], "line 2 of k has 1 numbers, the lines before have 2"),
        ([["1", "nan"], ["nan", "1"]], "number 2 in line 1 of k must be a finite number, got 'nan'"),
        ([["1", "NA"], ["NA", "1"]], "number 2 in line 1 of k must be a finite number, got 'NA'"),
        ([["ann", "bob"], ["1", "0"], ["0", "1"]], "number 1 in line 1 of k must be a finite number, got 'ann'"),
        ([], "k is empty"),
    ],
)
def test_kinship_malformed(tmp_path, rows, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        read_gemma_kinship(write(tmp_path / "k", rows))


def test_kinship_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="`path`: .*nowhere' does not exist. Give the .cXX.txt"):
        read_gemma_kinship(tmp_path / "nowhere")


# -------------------------------------------------------------------------------- 1940 mice × 12226 SNPs, both formats


@pytest.fixture(scope="module")
def mouse_plink(realdata_dir, tmp_path_factory):
    folder = realdata_dir / "gemma_mouse_hs1940"
    bed = tmp_path_factory.mktemp("mouse") / "mouse_hs1940.bed"
    with gzip.open(folder / "mouse_hs1940.bed.gz") as source, bed.open("wb") as target:
        shutil.copyfileobj(source, target)
    return read_plink(bed, bim=folder / "mouse_hs1940.bim", fam=folder / "mouse_hs1940.fam")


@pytest.fixture(scope="module")
def mouse_bimbam(realdata_dir):
    stem = str(realdata_dir / "gemma_mouse_hs1940" / "mouse_hs1940")
    return read_bimbam(f"{stem}.geno.txt.gz", f"{stem}.pheno.txt.gz", f"{stem}.anno.txt.gz", dtype="float64")


@pytest.mark.realdata
def test_mouse_formats_agree(mouse_plink, mouse_bimbam):
    for adata in (mouse_plink, mouse_bimbam):
        assert adata.shape == (1940, 12226)
        assert not np.isnan(adata.X).any()
        assert len(adata.var["chrom"].cat.categories) == 19
    assert mouse_plink.var_names.equals(mouse_bimbam.var_names)
    for column in ("chrom", "pos", "cm", "a0", "a1"):
        assert mouse_plink.var[column].tolist() == mouse_bimbam.var[column].tolist(), column
    assert (mouse_plink.var["pos"] == -9).sum() == 1926
    counts = [1410, 757, 653, 757, 653, 1580]
    for number, count in enumerate(counts, 1):
        plink = mouse_plink.obs["phenotype" if number == 1 else f"phenotype_{number}"]
        bimbam = mouse_bimbam.obs[f"phenotype_{number}"]
        assert plink.notna().sum() == count
        np.testing.assert_array_equal(plink, bimbam)
    # PLINK holds the BIMBAM dosages rounded to calls, halves upward; 19196 of 23.7 million are no calls.
    assert np.count_nonzero(~np.isin(mouse_bimbam.X, [0, 1, 2])) == 19196
    np.testing.assert_array_equal(mouse_plink.X, np.floor(mouse_bimbam.X + 0.5))


@pytest.mark.realdata
def test_mouse_counted_allele_is_gemmas_allele1(mouse_plink, realdata_dir):
    file = realdata_dir / "gemma_mouse_hs1940" / "expected" / "mouse_hs1940_all.assoc.txt.gz"
    assoc = pd.read_csv(file, sep="\t", dtype={"chr": str}).set_index("rs")
    used = mouse_plink[mouse_plink.obs["phenotype"].notna().to_numpy(), assoc.index.to_numpy()]
    assert used.shape == (1410, 10768)
    assert used.var["a1"].tolist() == assoc["allele1"].tolist()
    assert used.var["a0"].tolist() == assoc["allele0"].tolist()
    assert used.var["chrom"].tolist() == assoc["chr"].tolist()
    assert used.var["pos"].tolist() == assoc["ps"].tolist()
    frequency = used.X.mean(axis=0, dtype=np.float64) / 2
    np.testing.assert_allclose(frequency, assoc["af"], rtol=0, atol=5.0001e-4)  # printed to three decimals
    assert assoc["af"].max() > 0.5, "a1 is not simply the minor allele"


@pytest.mark.realdata
def test_mouse_grm_is_gemmas(mouse_bimbam):
    x = mouse_bimbam.X
    # GEMMA filters on the 1410 with a phenotype and averages over all 1940.
    frequency = x[mouse_bimbam.obs["phenotype_1"].notna().to_numpy()].mean(axis=0) / 2
    kept = np.minimum(frequency, 1 - frequency) >= 0.01
    assert kept.sum() == 10768
    centred = x[:, kept] - x[:, kept].mean(axis=0)
    k = centred[:3] @ centred[:3].T / kept.sum()
    expected = [
        [0.335059, -0.0227226, 0.0103535],
        [-0.0227226, 0.303596, -0.0253762],
        [0.0103535, -0.0253762, 0.353610],
    ]
    # GEMMA's example prints six significant digits.
    assert [[float(f"{value:.6g}") for value in row] for row in k] == expected
    # The rows and columns must also belong to the right donors and variants, which K alone does not tell.
    assert mouse_bimbam.var_names[kept][0] == "rs3683945"
    assert frequency[0] == pytest.approx(0.443, abs=5e-4)
    assert frequency[mouse_bimbam.var_names.get_loc("rs13475700")] == pytest.approx(0.127, abs=5e-4)


@pytest.mark.realdata
def test_fastlmm_bed_counts_the_second_allele(realdata_dir):
    first = read_plink(realdata_dir / "fastlmm_synth" / "all")
    second = read_plink(realdata_dir / "fastlmm_synth" / "all.bed", count_a1=False)
    assert first.shape == (500, 5000)
    np.testing.assert_array_equal(second.X, 2 - first.X)
    assert second.var["a1"].tolist() == first.var["a0"].tolist()
    assert first.obs["phenotype"].isna().all(), "every phenotype is -9"
