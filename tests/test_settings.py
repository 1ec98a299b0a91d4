"""`al.settings`: values, what is refused, logging."""

from __future__ import annotations

import logging
import re
import subprocess
import sys

import numpy as np
import pytest
from helpers import cohort, messages

import annlmm as al
from annlmm._settings import Settings


def test_defaults():
    fresh = Settings()
    assert fresh.verbosity == 1
    assert fresh.progress is True
    assert fresh.block_memory == 2**28
    assert fresh.threads >= 1
    assert 2**28 < fresh.kernel_memory < 2**45
    assert repr(fresh).startswith("annlmm.settings(verbosity=1, progress=True, block_memory=268435456, ")


@pytest.mark.parametrize(
    ("value", "level"), [("error", 0), ("warning", 1), ("info", 2), ("hint", 3), ("debug", 4), (2, 2)]
)
def test_verbosity_by_name_or_number(value, level):
    al.settings.verbosity = value
    assert al.settings.verbosity == level
    logger = logging.getLogger("annlmm")
    assert logger.isEnabledFor(logging.ERROR)
    assert logger.isEnabledFor(logging.WARNING) == (level >= 1)
    assert logger.isEnabledFor(logging.INFO) == (level >= 2)
    assert logger.isEnabledFor(logging.DEBUG) == (level >= 4)


@pytest.mark.parametrize("value", ["loud", "", 5, -1, 1.5, True, None, [1]])
def test_verbosity_is_refused(value):
    before = al.settings.verbosity
    with pytest.raises(
        ValueError, match=r"verbosity: must be one of error, warning, info, hint, debug or 0 to 4, received"
    ):
        al.settings.verbosity = value
    assert al.settings.verbosity == before


@pytest.mark.parametrize("name", ["block_memory", "kernel_memory", "threads"])
def test_numbers(name):
    unit = "" if name == "threads" else " of bytes, such as 2**30"
    before = getattr(al.settings, name)
    try:
        for value in (1, 4e9, np.int64(7), np.float32(3)):
            setattr(al.settings, name, value)
            assert getattr(al.settings, name) == value
            assert type(getattr(al.settings, name)) is int
        for value in ("1GB", None, 0, -1, True, float("nan"), float("inf"), [1], 1j):
            with pytest.raises(ValueError, match=rf"{name}: must be a positive number{re.escape(unit)}, received"):
                setattr(al.settings, name, value)
        assert getattr(al.settings, name) == 3
    finally:
        setattr(al.settings, name, before)


def test_progress():
    al.settings.progress = False
    for value in (1, "no", None):
        with pytest.raises(ValueError, match="progress: must be True or False, received"):
            al.settings.progress = value
    assert al.settings.progress is False


def test_a_misspelt_setting_is_no_new_one():
    with pytest.raises(AttributeError, match="al.settings has no 'verbose'; known: verbosity, progress, block_memory"):
        al.settings.verbose = 2


def test_progress_bars(capsys):
    """They appear after three seconds, or not at all."""
    adata = cohort()
    for progress in (True, False):
        al.settings.progress = progress
        al.pp.kernel_grm(adata)
        al.tl.fit_null(adata, "y", gamma=1.0)
        al.tl.associate(adata)
    captured = capsys.readouterr()
    assert "associate" not in captured.out + captured.err


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_give_the_same_results(threads):
    adata = cohort(40, 50)
    al.pp.kernel_grm(adata)
    al.tl.fit_null(adata, "y", gamma=1.0)
    al.tl.associate(adata)
    before = al.settings.threads
    al.settings.threads, al.settings.block_memory = threads, 1
    try:
        al.tl.associate(adata, key_added="again")
    finally:
        al.settings.threads = before
    np.testing.assert_allclose(adata.var["again_p_value"], adata.var["lmm_p_value"], rtol=1e-9)


def test_silent_by_default_and_on_stderr():
    """A script prints nothing of ours; at verbosity 'info' it comes on stderr, bare, and not again through the root logger."""
    script = (
        "import logging, sys, annlmm as al\n"
        "logging.basicConfig(stream=sys.stdout)\n"
        "adata = al.datasets.gwas_cohort(n_obs=30, n_vars=20, n_causal=2)\n"
        "al.pp.kernel_grm(adata)\n"
        "al.settings.verbosity = 'info'\n"
        "al.tl.fit_null(adata, 'phenotype', gamma=1.0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning:annlmm", "-c", script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert lines[0].startswith("fit_null: phenotype on 30 of 30 observations, 1 fixed effects, kernel 'kernel'")
    assert len(lines) == 2


def test_messages_of_levels():
    adata = cohort()
    with messages("info") as seen:
        al.pp.kernel_grm(adata)
        al.pp.kernel_group(adata, "donor", key_added="groups")
    assert seen == [
        "INFO kernel_grm: 12 of 12 variants used",
        "INFO kernel_grm: 40 observations, rank 12\n    wrote .obsm['kernel'] and .uns['kernel']",
        "INFO kernel_group: 40 observations in 8 groups of 'donor'\n    wrote .uns['groups']",
    ]
