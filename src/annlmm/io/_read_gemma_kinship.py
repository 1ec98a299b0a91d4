from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from os import PathLike
from time import perf_counter

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from annlmm._settings import logger
from annlmm.io._read_bimbam import donor_names
from annlmm.io._text import existing_file, in_column, split_lines, to_float

# Halves that differ by round-off may be printed one unit apart: 1e-10 by GEMMA, 1e-6 where six digits are printed.
_ASYMMETRY = 1e-6


def read_gemma_kinship(path: str | PathLike[str], *, obs_names: Iterable[str] | None = None) -> pd.DataFrame:
    r"""Read a relatedness matrix written by GEMMA, for :func:`annlmm.pp.kernel_precomputed`.

    Parameters
    ----------
    path
        The ``.cXX.txt`` or ``.sXX.txt`` of ``gemma -gk``: a square table without header, separated by blanks, tabs or
        commas, gzipped or not.
    obs_names
        Names of the donors, which the file does not hold, in its order: all individuals of the genotype files, also
        those without a phenotype. Default "0", "1", …, as :func:`annlmm.io.read_bimbam` names them.

    Returns
    -------
    DataFrame of float64, n × n
        Index and columns are the names of the donors. Exactly symmetric: differences between the two halves within the
        precision of the text are averaged.

    Raises
    ------
    FileNotFoundError
        The file does not exist.
    ValueError
        The table is not square, not finite or not symmetric (to 1e-6 of its largest entry); `obs_names` has the wrong
        length or repeats a name.
    TypeError
        An argument has the wrong type.

    Notes
    -----
    Format: GEMMA manual, section 4.5 (https://github.com/genetics-statistics/GEMMA). GEMMA prints 10
    significant digits. Whether the matrix is positive semi-definite is judged where it is used.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import annlmm as al
    >>> file = pathlib.Path(tempfile.mkdtemp()) / "toy.cXX.txt"
    >>> _ = file.write_text("0.335\t-0.022\n-0.022\t0.303\n")
    >>> al.io.read_gemma_kinship(file, obs_names=["ann", "bob"])
           ann    bob
    ann  0.335 -0.022
    bob -0.022  0.303
    """
    start = perf_counter()
    file = existing_file(path, "path", "Give the .cXX.txt (or .sXX.txt) that `gemma -gk` wrote.")
    rows: list[NDArray[np.float64]] = []
    for number, fields in split_lines(file, "path", commas=True):
        if rows and len(fields) != len(rows[0]):
            raise ValueError(
                f"`path`: line {number} of {file.name} has {len(fields)} numbers, the lines before have "
                f"{len(rows[0])}. A relatedness matrix is square."
            )
        rows.append(to_float(fields, partial(in_column, "`path`: number", file, number), missing_allowed=False))
    if not rows:
        raise ValueError(f"`path`: {file.name} is empty.")
    if len(rows) != len(rows[0]):
        raise ValueError(
            f"`path`: {file.name} must be square, found {len(rows)} lines of {len(rows[0])} numbers. A header, "
            "or a file cut off while it was copied?"
        )
    names = donor_names(obs_names, len(rows), "path")
    kinship = np.array(rows)
    asymmetry = np.abs(kinship - kinship.T)
    i, j = (int(index) for index in np.unravel_index(int(np.argmax(asymmetry)), kinship.shape))
    if asymmetry[i, j] > _ASYMMETRY * np.abs(kinship).max():
        raise ValueError(
            f"`path`: {file.name} must be symmetric, found {kinship[i, j]:.10g} in row {i + 1}, column {j + 1} and "
            f"{kinship[j, i]:.10g} in row {j + 1}, column {i + 1}."
        )
    logger.info(f"read_gemma_kinship: {len(rows)} × {len(rows)} from {file.name} ({perf_counter() - start:.1f} s)")
    return pd.DataFrame((kinship + kinship.T) / 2, index=names, columns=names)
