from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from os import PathLike
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
from anndata import AnnData
from numpy.typing import DTypeLike, NDArray

from annlmm._settings import logger
from annlmm.io._text import as_path, existing_file, float_dtype, in_line, read_columns, to_float, to_int
from annlmm.io._variants import allele_columns, chromosomes, unique_names

_FAM = ("fid", "iid", "father", "mother", "sex", "phenotype")
_BIM = ("chrom", "id", "cm", "pos", "allele 1", "allele 2")
_SEX = {"1": "male", "M": "male", "m": "male", "2": "female", "F": "female", "f": "female"}


def read_plink(
    path: str | PathLike[str],
    *,
    bim: str | PathLike[str] | None = None,
    fam: str | PathLike[str] | None = None,
    count_a1: bool = True,
    fam_phenotype: str | Sequence[str] = "phenotype",
    missing_phenotype: float | None = -9.0,
    dtype: DTypeLike = np.float32,
) -> AnnData:
    r"""Read a PLINK 1 binary fileset (.bed, .bim, .fam) as donors × variants.

    The .bed file is checked (magic bytes, variant-major order, size against the numbers of donors and variants)
    before any memory is taken for the genotypes.

    Parameters
    ----------
    path
        The .bed file, with or without its suffix.
    bim, fam
        The variant and the sample file, where they do not stand beside the .bed under the same name. Blank- or
        tab-separated, without header, gzipped or not.
    count_a1
        Which allele `.X` counts. ``True``: the first allele of the .bim (its column 5; PLINK's A1, usually the minor
        one), as PLINK, GEMMA and GCTA report effects. ``False``: the second (column 6; PLINK's A2), as for FaST-LMM's
        ``count_A1=False``. ``.var["a1"]`` is the counted allele, and so the effect allele, in both cases.
    fam_phenotype
        Names of the phenotype columns of the .fam (column 6 and, in GEMMA's extended .fam, those after it). A string
        names the first, the others get the suffixes ``_2``, ``_3``, …; a list names each.
    missing_phenotype
        The number that stands for a missing phenotype besides NA: PLINK's and GEMMA's −9. ``None`` keeps −9 as data.
        Case/control codes (1, 2) are kept as they are, and so is 0.
    dtype
        float32 or float64. Integers are refused: bed-reader's int8 codes a missing call as −127, silently a dosage.

    Returns
    -------
    AnnData of n donors × m variants with

    `.X` : ndarray of `dtype`, n × m
        Number of copies (0, 1, 2) of ``.var["a1"]``; NaN where the call is missing. Variant-major (Fortran order), as
        in the file.
    `.obs_names` : str
        IID; where an IID occurs twice, ``FID_IID`` for all.
    `.obs["fid"]`, `.obs["iid"]`, `.obs["father"]`, `.obs["mother"]` : str
        As in the file ("0" is PLINK's unknown parent).
    `.obs["sex"]` : categorical
        female, male; missing for every code but 1 (or M) and 2 (or F), which is PLINK's rule.
    `.obs["phenotype"]`, `.obs["phenotype_2"]`, … : float64
        NaN where missing.
    `.var_names` : str
        The variant id. An id of "." becomes ``chrom:pos:allele2:allele1``; repeated ids get the suffixes
        -1, -2, …, with a warning.
    `.var["chrom"]` : categorical
        Categories in order of appearance.
    `.var["pos"]` : int64; `.var["cm"]` : float64
        Base-pair position and genetic position (centimorgans or morgans) as in the file. A negative position, mostly
        −9, is PLINK's and GEMMA's code for an unknown one.
    `.var["a0"]`, `.var["a1"]` : categorical
        The other allele and the counted (effect) allele.

    Raises
    ------
    FileNotFoundError
        One of the three files does not exist.
    ValueError
        The .bed is truncated, too long, individual-major or no .bed; a line of the .bim or .fam has the wrong number
        of fields or a number that cannot be read; two donors share FID and IID.
    TypeError
        An argument has the wrong type.
    ImportError
        bed-reader is not installed (``pip install 'annlmm[genotype]'``).

    Notes
    -----
    Format: https://www.cog-genomics.org/plink/1.9/formats#bed, #bim and #fam; several phenotypes per .fam: GEMMA
    manual, section 3.1. The .bed is decoded by bed-reader on all cores; the environment variable ``PST_NUM_THREADS``
    limits them.

    Examples
    --------
    Two donors and one variant, A/G, with two and one copies of A:

    >>> import tempfile, pathlib
    >>> import annlmm as al
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> _ = (folder / "toy.bed").write_bytes(bytes([0x6C, 0x1B, 1, 0b1000]))
    >>> _ = (folder / "toy.bim").write_text("1 rs1 0 1000 A G\n")
    >>> _ = (folder / "toy.fam").write_text("f1 ann 0 0 2 1.5\nf2 bob 0 0 1 -9\n")
    >>> adata = al.io.read_plink(folder / "toy")
    >>> adata.to_df()["rs1"].to_dict()
    {'ann': 2.0, 'bob': 1.0}
    >>> adata.var[["a0", "a1"]].values.tolist()
    [['G', 'A']]
    >>> adata.obs["phenotype"].tolist()
    [1.5, nan]
    """
    start = perf_counter()
    try:
        from bed_reader import open_bed
    except ImportError as error:
        raise ImportError(
            "read_plink needs bed-reader to decode .bed files: pip install 'annlmm[genotype]'."
        ) from error
    if not isinstance(count_a1, (bool, np.bool_)):
        raise TypeError(f"`count_a1` must be True or False, got {count_a1!r}.")
    out_dtype = float_dtype(dtype)

    given = as_path(path, "path")
    if given.suffix == ".gz":
        raise ValueError(f"`path`: {given.name} is compressed; a .bed is read in place. Decompress it first (gunzip).")
    # with_suffix would cut "chr1.filtered" at its dot.
    stem = str(given)[:-4] if given.suffix == ".bed" else str(given)
    bed_file = existing_file(stem + ".bed", "path", "Give the path of the .bed file, with or without its suffix.")
    bim_file = existing_file(
        stem + ".bim" if bim is None else bim, "bim", "Put the .bim beside the .bed or give its path as `bim=`."
    )
    fam_file = existing_file(
        stem + ".fam" if fam is None else fam, "fam", "Put the .fam beside the .bed or give its path as `fam=`."
    )

    obs = _read_fam(fam_file, fam_phenotype, missing_phenotype)
    var = _read_bim(bim_file, bool(count_a1))
    _check_bed(bed_file, len(obs), len(var), bim_file.name, fam_file.name)
    with open_bed(
        bed_file, iid_count=len(obs), sid_count=len(var), count_A1=bool(count_a1), skip_format_check=True
    ) as bed:
        x: NDArray[np.floating] = bed.read(dtype=out_dtype.name, order="F")
    if "phenotype" in obs and set(obs["phenotype"].dropna()) == {0, 1, 2}:
        logger.warning(
            f"read_plink: the phenotype of {fam_file.name} is 0, 1 or 2; where 1 and 2 are controls and cases, 0 is missing: "
            "adata.obs.loc[adata.obs['phenotype'] == 0, 'phenotype'] = np.nan"
        )
    files = f"{bed_file.name}, {bim_file.name}, {fam_file.name}"
    logger.info(f"read_plink: {len(obs)} donors × {len(var)} variants from {files} ({perf_counter() - start:.1f} s)")
    return AnnData(X=x, obs=obs, var=var)


def _read_fam(file: Path, names: str | Sequence[str], missing: float | None) -> pd.DataFrame:
    columns = read_columns(file, "fam", _FAM, at_least=6, at_most=None)
    fid, iid, father, mother, sex = columns[:5]
    phenotype_names = _phenotype_names(names, len(columns) - 5)
    index = pd.Index(iid)
    if index.has_duplicates:
        index = pd.Index([f"{f}_{i}" for f, i in zip(fid, iid, strict=True)])
        if index.has_duplicates:
            twice = index[index.duplicated()][0]
            raise ValueError(
                f"`fam`: {file.name} names a donor twice (FID_IID {twice!r}); family and individual id together "
                "must be unique. Rename one of them."
            )
    obs = pd.DataFrame({"fid": fid, "iid": iid, "father": father, "mother": mother}, index=index)
    obs["sex"] = pd.Categorical([_SEX.get(code) for code in sex], categories=["female", "male"])
    for name, column in zip(phenotype_names, columns[5:], strict=True):
        values = to_float(column, partial(in_line, f"`fam`: phenotype {name!r}", file))
        if missing is not None:
            values[values == missing] = np.nan
        obs[name] = values
    return obs


def _phenotype_names(names: str | Sequence[str], count: int) -> list[str]:
    if isinstance(names, str):
        found = [names, *(f"{names}_{i}" for i in range(2, count + 1))]
    else:
        found = list(names)
        if not all(isinstance(name, str) for name in found):
            raise TypeError(f"`fam_phenotype` must be a string or a list of strings, got {names!r}.")
    if len(found) != count:
        raise ValueError(f"`fam_phenotype` names {len(found)} columns, the .fam has {count} phenotypes. Name each.")
    if len(set(found)) < count or set(found) & {*_FAM[:5], ""}:
        raise ValueError(f"`fam_phenotype` must be distinct and none of {', '.join(_FAM[:5])}, got {found}.")
    return found


def _read_bim(file: Path, count_a1: bool) -> pd.DataFrame:
    chrom, ids, cm, pos, first, second = read_columns(file, "bim", _BIM, at_least=6, at_most=6)
    names = [
        f"{c}:{p}:{y}:{x}" if name == "." else name
        for name, c, p, x, y in zip(ids, chrom, pos, first, second, strict=True)
    ]
    a0, a1 = (second, first) if count_a1 else (first, second)
    columns = {
        "chrom": chromosomes(chrom),
        "pos": to_int(pos, partial(in_line, "`bim`: position", file)),
        "cm": to_float(cm, partial(in_line, "`bim`: genetic position", file), missing_allowed=False),
        **allele_columns(a0, a1),
    }
    return pd.DataFrame(columns, index=unique_names(names, "bim", stacklevel=3))


def _check_bed(file: Path, n_donors: int, n_variants: int, bim_name: str, fam_name: str) -> None:
    """Magic bytes and size, so that a wrong file is told before memory is taken for it."""
    found = file.stat().st_size
    with file.open("rb") as handle:
        head = handle.read(3)
    if head[:2] != b"\x6c\x1b":
        raise ValueError(
            f"`path`: {file.name} is no PLINK 1 .bed file: it must begin with the bytes 6c 1b, found "
            f"{head[:2].hex(' ') or 'nothing'}."
        )
    if head[2:] != b"\x01":
        raise ValueError(
            f"`path`: {file.name} must be variant-major (third byte 01), found {head[2:].hex() or 'nothing'}. "
            "Rewrite an individual-major file with `plink --make-bed`."
        )
    expected = 3 + n_variants * ((n_donors + 3) // 4)
    if found != expected:
        reason = "truncated" if found < expected else "too long"
        raise ValueError(
            f"`path`: {file.name} must have {expected} bytes for {n_donors} donors ({fam_name}) and {n_variants} "
            f"variants ({bim_name}), found {found}: it is {reason}, or the three files do not belong together."
        )
    used = n_donors % 4
    if used and n_variants:
        # The last byte of a variant holds `used` donors and bits that PLINK leaves 0: a donor too few in the .fam shows there.
        stride = (n_donors + 3) // 4
        some = np.memmap(file, dtype=np.uint8, mode="r", offset=3, shape=(n_variants, stride))[:1000, -1]
        set_bits = int((np.asarray(some) >> (2 * used) != 0).sum())
        if set_bits:
            raise ValueError(
                f"`path`: {set_bits} of the first {some.size} variants of {file.name} hold calls of more donors than the {n_donors} of {fam_name}; "
                "was a line of the .fam lost? All after it would have the genotypes of their neighbours."
            )
