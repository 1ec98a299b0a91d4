from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import DTypeLike, NDArray

from annlmm._settings import logger
from annlmm.io._text import (
    MISSING,
    existing_file,
    float_dtype,
    in_column,
    in_line,
    read_columns,
    split_lines,
    to_float,
    to_int,
)
from annlmm.io._variants import UNKNOWN_POSITION, allele_columns, chromosomes, unique_names


def read_bimbam(
    genotypes: str | PathLike[str],
    phenotypes: str | PathLike[str] | None = None,
    annotation: str | PathLike[str] | None = None,
    *,
    obs_names: Iterable[str] | None = None,
    dosage_range: tuple[float, float] | None = (0.0, 2.0),
    dtype: DTypeLike = np.float32,
) -> AnnData:
    r"""Read BIMBAM mean genotypes, GEMMA's text format, as donors × variants.

    All files are text without header, gzipped or not; fields are separated by commas, blanks or tabs.

    Parameters
    ----------
    genotypes
        One line per variant: id, the counted allele, the other allele, and one dosage per donor. NA is missing.
    phenotypes
        One line per donor, in the order of the dosages; one column per phenotype. NA is missing; −9 is a number here,
        as it is for GEMMA.
    annotation
        One line per variant: id, position, chromosome and, optionally, genetic position. Matched by id; the order is
        free and further variants are ignored.
    obs_names
        Names of the donors, which BIMBAM files do not hold. Default "0", "1", ….
    dosage_range
        Dosages outside raise an error, because they are mostly another program's code for a missing call (−9, 3, …).
        ``None`` accepts any number.
    dtype
        float32 or float64.

    Returns
    -------
    AnnData of n donors × m variants with

    `.X` : ndarray of `dtype`, n × m
        Dosage of ``.var["a1"]``; NaN where missing. Variant-major (Fortran order), as in the file.
    `.obs["phenotype_1"]`, `.obs["phenotype_2"]`, … : float64
        The columns of `phenotypes`, always numbered (1 is GEMMA's ``-n 1``); NaN where missing.
    `.var_names` : str
        The variant id; repeated ids get the suffixes -1, -2, …, with a warning.
    `.var["a0"]`, `.var["a1"]` : categorical
        The other allele (column 3) and the counted, effect allele (column 2; GEMMA's ``allele1``).
    `.var["chrom"]` : categorical; `.var["pos"]` : int64; `.var["cm"]` : float64
        Only with `annotation`, `cm` only where it has a fourth column. Chromosomes are categories in order of
        appearance in `genotypes`. NA becomes a missing category, position −9 (GEMMA's code) and NaN, respectively.

    Raises
    ------
    FileNotFoundError
        A file does not exist.
    ValueError
        Lines of different lengths, a field that is no number, a dosage outside `dosage_range`, numbers of donors that
        disagree, a variant without annotation or with two different ones.
    TypeError
        An argument has the wrong type.

    Notes
    -----
    Format: GEMMA manual, section 3.2 (https://github.com/genetics-statistics/GEMMA).

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import annlmm as al
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "geno.txt").write_text("rs1, A, G, 0.5, 2, NA\nrs2, C, T, 1, 0, 1\n")
    >>> _ = (folder / "pheno.txt").write_text("1.5\nNA\n0.5\n")
    >>> _ = (folder / "anno.txt").write_text("rs2, 2000, 1\nrs1, 1000, 1\n")
    >>> adata = al.io.read_bimbam(folder / "geno.txt", folder / "pheno.txt", folder / "anno.txt")
    >>> adata.to_df()["rs1"].to_dict()
    {'0': 0.5, '1': 2.0, '2': nan}
    >>> adata.var["pos"].to_dict()
    {'rs1': 1000, 'rs2': 2000}
    """
    start = perf_counter()
    out_dtype = float_dtype(dtype)
    remedy = "Give the path of a text file, gzipped or not."
    genotype_file = existing_file(genotypes, "genotypes", remedy)
    phenotype_file = None if phenotypes is None else existing_file(phenotypes, "phenotypes", remedy)
    annotation_file = None if annotation is None else existing_file(annotation, "annotation", remedy)

    ids, a1, a0, dosages = _read_dosages(genotype_file, _range(dosage_range), out_dtype)
    n_donors = dosages.shape[1]

    obs = pd.DataFrame(index=donor_names(obs_names, n_donors, "genotypes"))
    if phenotype_file is not None:
        columns = read_columns(phenotype_file, "phenotypes", ["phenotype"], at_least=1, at_most=None, commas=True)
        if len(columns[0]) != n_donors:
            raise ValueError(
                f"`phenotypes`: {phenotype_file.name} has {len(columns[0])} lines, `genotypes` has {n_donors} donors. "
                "Give one line per donor, without header."
            )
        for number, column in enumerate(columns, 1):
            place = partial(in_line, f"`phenotypes`: column {number}", phenotype_file)
            obs[f"phenotype_{number}"] = to_float(column, place)

    var = pd.DataFrame(index=unique_names(ids, "genotypes", stacklevel=2))
    if annotation_file is not None:
        for name, values in _read_annotation(annotation_file, ids).items():
            var[name] = values
    for name, alleles in allele_columns(a0, a1).items():
        var[name] = alleles
    files = ", ".join(file.name for file in (genotype_file, phenotype_file, annotation_file) if file is not None)
    logger.info(f"read_bimbam: {n_donors} donors × {len(ids)} variants from {files} ({perf_counter() - start:.1f} s)")
    return AnnData(X=dosages.T, obs=obs, var=var)


def donor_names(obs_names: Iterable[object] | None, n_donors: int, argument: str) -> pd.Index[str]:
    """`obs_names` checked against the number of donors, or "0", "1", …."""
    if obs_names is None:
        return pd.Index([str(i) for i in range(n_donors)])
    if isinstance(obs_names, str):
        raise TypeError(f"`obs_names` must be a list of strings, got the string {obs_names!r}.")
    names = list(obs_names)
    if len(names) != n_donors:
        raise ValueError(f"`obs_names` has {len(names)} names, `{argument}` has {n_donors} donors.")
    wrong = next((name for name in names if not isinstance(name, str)), None)
    if wrong is not None:
        raise TypeError(f"`obs_names` must be strings, got {wrong!r} ({type(wrong).__name__}). Convert with str().")
    index = pd.Index(names)
    if index.has_duplicates:
        raise ValueError(f"`obs_names` must be unique, got {index[index.duplicated()][0]!r} twice.")
    return index


def _range(dosage_range: Any) -> tuple[float, float]:
    if dosage_range is None:
        return -np.inf, np.inf
    try:
        low, high = (float(bound) for bound in dosage_range)
    except (TypeError, ValueError):
        raise TypeError(f"`dosage_range` must be a pair (low, high) or None, got {dosage_range!r}.") from None
    if not low < high:
        raise ValueError(f"`dosage_range` must be (low, high) with low < high, got {dosage_range!r}.")
    return low, high


def _read_dosages(
    file: Path, bounds: tuple[float, float], dtype: np.dtype[np.floating]
) -> tuple[list[str], list[str], list[str], NDArray[np.floating]]:
    low, high = bounds
    ids: list[str] = []
    a1: list[str] = []
    a0: list[str] = []
    rows: list[NDArray[np.floating]] = []
    for number, fields in split_lines(file, "genotypes", commas=True):
        if len(fields) < 4:
            raise ValueError(
                f"`genotypes`: line {number} of {file.name} must hold id, two alleles and at least one dosage, got "
                f"{' '.join(fields)[:80]!r}."
            )
        if rows and len(fields) - 3 != len(rows[0]):
            raise ValueError(
                f"`genotypes`: line {number} of {file.name} ({fields[0]}) has {len(fields) - 3} dosages, the lines "
                f"before have {len(rows[0])}. Write a missing one as NA."
            )
        values = to_float(fields[3:], partial(in_column, "`genotypes`: dosage", file, number))
        outside = (values < low) | (values > high)
        if outside.any():
            index = int(np.argmax(outside))
            raise ValueError(
                f"`genotypes`: dosage {index + 1} in line {number} of {file.name} ({fields[0]}) is {values[index]:g}, "
                f"outside `dosage_range` ({low:g}, {high:g}). Write a missing call as NA, or pass `dosage_range=None` "
                "to take any number."
            )
        ids.append(fields[0])
        a1.append(fields[1])
        a0.append(fields[2])
        rows.append(values.astype(dtype))
    if not rows:
        raise ValueError(f"`genotypes`: {file.name} is empty.")
    dosages = np.empty((len(rows), len(rows[0])), dtype=dtype)
    # Each line is freed once copied (from the end): the peak stays near one copy of the matrix.
    for i in reversed(range(len(rows))):
        dosages[i] = rows.pop()
    return ids, a1, a0, dosages


def _read_annotation(file: Path, ids: list[str]) -> dict[str, pd.Categorical[str] | NDArray[np.generic]]:
    names = ["id", "position", "chromosome", "genetic position"]
    found, pos, chrom, *rest = read_columns(file, "annotation", names, at_least=3, at_most=4, commas=True)
    row: dict[str, int] = {}
    for i, name in enumerate(found):
        first = row.setdefault(name, i)
        if first != i and (pos[first], chrom[first]) != (pos[i], chrom[i]):
            raise ValueError(
                f"`annotation`: {file.name} places {name!r} twice: {chrom[first]}:{pos[first]} (line {first + 1}) and "
                f"{chrom[i]}:{pos[i]} (line {i + 1})."
            )
    absent = [name for name in ids if name not in row]
    if absent:
        raise ValueError(
            f"`annotation`: {len(absent)} of {len(ids)} variants of `genotypes` are not in {file.name}, the first is "
            f"{absent[0]!r}. Add them, or read without `annotation` and join what you have to `adata.var`."
        )
    order = [row[name] for name in ids]
    known = [str(UNKNOWN_POSITION) if field in MISSING else field for field in pos]
    positions = to_int(known, partial(in_line, "`annotation`: position", file))
    columns: dict[str, pd.Categorical[str] | NDArray[np.generic]] = {
        "chrom": chromosomes([chrom[i] for i in order]),
        "pos": positions[order],
    }
    if rest:
        columns["cm"] = to_float(rest[0], partial(in_line, "`annotation`: genetic position", file))[order]
    return columns
