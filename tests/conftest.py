"""Shared fixtures. `realdata_dir` finds the reference data beside the clone, which is not part of the project."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

import annlmm as al

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def realdata_dir() -> Path:
    """The folder of the reference data; without it the test is skipped, or fails where the data is required."""
    if not DATA.is_dir():
        message = "the reference data (../shared/data beside the clone) is not here"
        if os.environ.get("ANNLMM_REQUIRE_REALDATA") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return DATA


@pytest.fixture(autouse=True)
def _quiet_settings() -> Iterator[None]:
    """Every test starts from, and leaves, the default settings without progress bars."""
    before = al.settings.verbosity, al.settings.progress, al.settings.block_memory, al.settings.kernel_memory
    al.settings.progress = False
    yield
    al.settings.verbosity, al.settings.progress, al.settings.block_memory, al.settings.kernel_memory = before
