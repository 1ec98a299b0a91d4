"""Every field of the schema through h5ad and zarr, on this stack and, where another interpreter is given, between two.

`ANNLMM_OTHER_PYTHON` names a Python with annlmm on another stack, e.g. anndata 0.13 and pandas 3 beside anndata 0.12 and
pandas 2: each then reads what the other wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from helpers import everything, portable, work_again

import annlmm as al
from annlmm._slots.access import SCHEMA_VERSION
from annlmm._slots.schema import FIELDS, Field

FORMATS = ["h5ad", "zarr"]
OTHER = os.environ.get("ANNLMM_OTHER_PYTHON")


@pytest.fixture(scope="module")
def whole() -> ad.AnnData:
    al.settings.progress = False
    return everything()


def write(adata: ad.AnnData, path: Path) -> Path:
    getattr(adata, f"write_{path.suffix[1:]}")(path)
    return path


def read(path: Path) -> ad.AnnData:
    return getattr(ad, f"read_{path.suffix[1:]}")(path)


def assert_portable(now: dict[str, Any], then: dict[str, Any]) -> None:
    assert set(now) == set(then), sorted(set(now) ^ set(then))
    different = {path: (now[path], then[path]) for path in then if now[path] != then[path]}
    assert not different, f"{len(different)}, e.g. {next(iter(different.items()))}"[:2000]


@pytest.fixture(scope="module", params=FORMATS)
def stored(request, whole, tmp_path_factory) -> ad.AnnData:
    """`whole`, written and read."""
    return read(write(whole, tmp_path_factory.mktemp("stored") / f"whole.{request.param}"))


def test_every_value_comes_back(whole, stored):
    assert_portable(portable(stored), portable(whole))


def test_what_was_read_is_written_again(whole, stored, tmp_path):
    assert_portable(portable(read(write(stored, tmp_path / "again.h5ad"))), portable(whole))


def values(adata: ad.AnnData, field: Field) -> list[Any]:
    """Every value that `everything` holds of a field."""
    markers = {"kernel": "kind", "fit_null": "beta_covariance", "associate": "association", "map_eqtl": "pairs"}
    marker = markers.get(field.owner, field.owner)
    keys = [k for k, v in adata.uns.items() if marker in v]
    found: list[Any] = []
    for key in keys:
        name = field.name.format(key=key)
        if field.slot == "uns":
            entry = adata.uns[key]
            if name in entry:
                found.append(entry[name])
            elif name in entry.get("fits", ()):
                found.append(entry["fits"][name].array)
        else:
            several = {"obs": "obsm", "var": "varm"}.get(field.slot, field.slot)
            found += [getattr(adata, slot)[name] for slot in {field.slot, several} if name in getattr(adata, slot)]
    return found


def is_text(value: Any) -> bool:
    return (
        isinstance(value, np.ndarray) and value.dtype.kind in "OTU" and all(isinstance(v, str) for v in value.ravel())
    )


def has_type(value: Any, dtype: str) -> bool:
    """As the schema says: a scalar, or the column or the array of several phenotypes."""
    array = value.array if isinstance(value, pd.Series) else value
    if dtype == "dict":
        return isinstance(value, dict)
    if dtype == "DataFrame":
        return isinstance(value, pd.DataFrame)
    if dtype == "str array":
        return is_text(value)
    if dtype == "category":
        return isinstance(array, pd.Categorical) or is_text(value)
    if dtype == "str":
        return isinstance(value, str) or isinstance(array, pd.Categorical)
    kinds = {"float": "f", "float64": "f", "int": "i", "bool": "b"}[dtype]
    scalar = {"f": float, "i": (int, np.integer), "b": (bool, np.bool_)}[kinds]
    if not hasattr(array, "__len__"):
        return isinstance(value, scalar)
    return np.asarray(array).dtype.name in ("float64", "int64", "bool") and np.asarray(array).dtype.kind == kinds


def assert_types(adata: ad.AnnData) -> None:
    for field in FIELDS:
        found = values(adata, field)
        assert found, f"`everything` does not hold {field.owner} {field.name}"
        for value in found:
            assert has_type(value, field.dtype), f"{field.owner} {field.name}: {value!r} is no {field.dtype}"


def test_every_field_of_the_schema_has_its_type(whole):
    assert_types(whole)


def test_every_field_of_the_schema_has_its_type_after_reading(stored):
    assert_types(stored)


def test_nothing_is_written_that_is_not_in_the_schema(whole):
    for owner, marker in {"kernel": "kind", "fit_null": "beta_covariance"}.items():
        known = {f.name for f in FIELDS if f.slot == "uns" and f.owner in (owner, "associate")}
        for key, entry in whole.uns.items():
            if marker in entry:
                assert set(entry) <= known, key
    names = {f.name.format(key="") for f in FIELDS if f.slot != "uns"}
    for slot in ("obs", "obsm", "var", "varm"):
        for name in getattr(whole, slot):
            key = max((k for k in whole.uns if name.startswith(k)), key=len, default=None)
            assert key is None or name.removeprefix(key) in names, name


def test_tables_of_what_was_read_are_the_same(whole, stored):
    for key in ("lmm", "several", "refit", "screen", "genomic"):
        now, then = al.get.association(stored, key), al.get.association(whole, key)
        pd.testing.assert_frame_equal(now, then, check_exact=True, check_index_type=False)
    for get, key, options in (
        (al.get.variance_components, "varcomp", {}),
        (al.get.variance_components, "scales", {}),
        (al.get.variance_components, "scales", {"members": True}),
        (al.get.differential, "de", {}),
        (al.get.differential, "joint", {"levels": True}),
    ):
        now, then = get(stored, key, **options), get(whole, key, **options)
        pd.testing.assert_frame_equal(now, then, check_exact=True, check_index_type=False)
    for key in ("kernel", "groups", "related"):
        pd.testing.assert_frame_equal(al.get.kernel(stored, key), al.get.kernel(whole, key), check_exact=True)


def test_status_of_several_phenotypes_is_text_in_varm(whole, stored):
    expected = ["ok", "constant", "collinear", "all_missing"]
    for adata in (whole, stored):
        status = adata.varm["several_status"]
        assert isinstance(status, np.ndarray)
        assert status[:4].astype(object).tolist() == [[s] * 2 for s in expected]
        assert status[13].astype(object).tolist() == ["masked"] * 2


def test_the_functions_work_on_what_was_read(stored):
    work_again(stored.copy())


# ------------------------------------------------------------------------------------------- versions

READERS = {
    "kernel": lambda a: al.get.kernel(a),
    "spatial": lambda a: al.tl.variance_components(a, kernel="spatial"),
    "lmm": lambda a: al.get.null_model(a),
    "refit": lambda a: al.get.association(a, "refit"),
    "varcomp": lambda a: al.get.variance_components(a),
    "de": lambda a: al.get.differential(a),
    "eqtl": lambda a: al.get.eqtl(a),
}


def test_every_result_has_its_version(stored):
    for key, entry in stored.uns.items():
        assert entry["schema_version"] == SCHEMA_VERSION, key


def with_version(adata: ad.AnnData, key: str, version: Any) -> ad.AnnData:
    out = adata.copy()
    out.uns[key] = {name: value for name, value in out.uns[key].items() if name != "schema_version"}
    if version is not None:
        out.uns[key]["schema_version"] = version
    return out


@pytest.mark.parametrize("key", READERS)
def test_what_a_later_release_wrote_is_refused(whole, key):
    later = with_version(whole, key, SCHEMA_VERSION + 1)
    message = rf"='{key}': written by a later annlmm \(schema {SCHEMA_VERSION + 1}\); update annlmm"
    with pytest.raises(ValueError, match=message):
        READERS[key](later)
    for version in ("evil", -1, np.array([1, 2]), 1.5):
        with pytest.raises(
            ValueError, match=r"\['schema_version'\] must be a whole number from 1, found .* make it again"
        ):
            READERS[key](with_version(whole, key, version))


@pytest.mark.parametrize("key", [key for key in READERS if key != "lmm"])
def test_what_was_written_before_there_was_a_version_is_read(whole, key):
    READERS[key](with_version(whole, key, None))


# ------------------------------------------------------------------------------------------- two stacks

RUN = """
import json, sys, warnings
warnings.simplefilter("ignore")
import anndata, pandas, annlmm, helpers
annlmm.settings.progress = False
mode, path, fmt, out = sys.argv[1:]
if mode == "write":
    adata = helpers.everything()
    getattr(adata, "write_" + fmt)(path)
else:
    adata = getattr(anndata, "read_" + fmt)(path)
values = helpers.portable(adata)
if mode == "read":
    helpers.work_again(adata)
with open(out, "w") as file:
    json.dump({"stack": [anndata.__version__, pandas.__version__], "values": values}, file)
"""


def run_other(mode: str, path: Path) -> dict[str, Any]:
    out = path.with_suffix(".json")
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "VIRTUAL_ENV")}
    environment["PYTHONPATH"] = str(Path(__file__).parent)
    command = [str(OTHER), "-c", RUN, mode, str(path), path.suffix[1:], str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(out.read_text())


@pytest.mark.skipif(not OTHER, reason="ANNLMM_OTHER_PYTHON names no second interpreter with annlmm")
@pytest.mark.parametrize("fmt", FORMATS)
class TestTwoStacks:
    def test_written_there_and_read_here(self, tmp_path, fmt):
        path = tmp_path / f"there.{fmt}"
        there = run_other("write", path)
        adata = read(path)
        assert_portable(portable(adata), there["values"])
        work_again(adata)

    def test_written_here_and_read_there(self, whole, tmp_path, fmt):
        path = write(whole, tmp_path / f"here.{fmt}")
        there = run_other("read", path)
        assert_portable(there["values"], portable(whole))
