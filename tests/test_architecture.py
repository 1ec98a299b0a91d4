"""What keeps the package in shape: imports point one way, files stay small, importing stays cheap, everything public is documented."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import annlmm as al
from annlmm._slots.schema import FIELDS

ROOT = Path(al.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
PACKAGES = ("blocks", "_slots", "pp", "tl", "get", "pl", "io", "datasets", "model")
HEAVY = ("scanpy", "scipy.stats", "matplotlib", "formulaic", "dask", "seaborn", "xarray", "bed_reader")

# Who may import whom inside the package (besides itself): public → _slots → model ← blocks.
ALLOWED = {
    "model": set(),
    "blocks": set(),
    "_slots": {"model", "_settings"},
    "_variants": {"model", "blocks", "_settings"},
    "pp": {"model", "blocks", "_slots", "_settings", "_variants"},
    "tl": {"model", "blocks", "_slots", "_settings", "_variants"},
    "get": {"model", "_slots"},
    "pl": {"model", "_slots", "get", "_settings"},
    "io": {"_settings"},
    "datasets": {"_settings"},
}


def name_of(path):
    return path.relative_to(ROOT).as_posix()


def imports(path):
    """(module, at module level) of every import statement of a file; those for type checkers only are left out."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and "TYPE_CHECKING" in ast.unparse(block.test)
        for node in ast.walk(block)
    }
    inner = {
        id(node)
        for function in ast.walk(tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, id(node) not in inner
        elif isinstance(node, ast.ImportFrom):
            assert node.level < 2, f"{name_of(path)}: import from a parent"
            if node.level == 1:  # from a file beside it
                continue
            # `from annlmm import io` imports annlmm.io
            for alias in node.names:
                yield (f"{node.module}.{alias.name}" if node.module == "annlmm" else node.module), id(node) not in inner


def part_of(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", FILES, ids=name_of)
class TestFiles:
    def test_length(self, path):
        lines = len(path.read_text(encoding="utf-8").splitlines())
        assert lines < 400, f"{name_of(path)}: {lines} lines; a file holds one idea"

    def test_imports_point_one_way(self, path):
        part = part_of(path)
        if part not in ALLOWED:
            return
        for module, _ in imports(path):
            if module.split(".")[0] == "annlmm":
                other = module.split(".")[1]
                assert other == part or other in ALLOWED[part], f"{name_of(path)} imports {module}"

    def test_heavy_imports_are_inside_functions(self, path):
        # Subclass matplotlib, or register the types of dask; imported where they are used.
        if name_of(path) in ("pl/_labels.py", "pl/_chromosome_axis.py", "blocks/_dask.py"):
            return
        for module, at_top in imports(path):
            heavy = any(module == name or module.startswith(name + ".") for name in HEAVY)
            assert not (heavy and at_top), f"{name_of(path)} imports {module} at module level"

    def test_says_what_it_is(self, path):
        """By a docstring, or by its name: `_read_plink.py` holds the public function `read_plink`."""
        tree = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}
        assert ast.get_docstring(tree) or path.stem.removeprefix("_") in functions, name_of(path)


@pytest.mark.parametrize("path", [p for p in FILES if part_of(p) == "model"], ids=name_of)
def test_the_numerical_core_knows_arrays_only(path):
    for module, _ in imports(path):
        assert module.split(".")[0] not in ("anndata", "scanpy", "matplotlib", "formulaic", "h5py", "tqdm"), (
            f"{name_of(path)}: {module}"
        )


def test_every_part_has_its_rule():
    parts = {part_of(path) for path in FILES} - {"__init__", "_settings"}
    assert parts == set(ALLOWED)


def loaded_by(statement):
    code = f"import json, sys\n{statement}\nprint(json.dumps(sorted(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(out.stdout.splitlines()[-1]))


def test_importing_is_cheap():
    """`import annlmm` loads nothing heavy that anndata does not load itself."""
    ours, theirs = loaded_by("import annlmm"), loaded_by("import anndata")
    assert "annlmm.model.lmm" in ours
    extra = {name for name in HEAVY if name in ours and name not in theirs}
    assert not extra


def public():
    """(qualified name, object) of everything in the `__all__` of the package and its parts."""
    for part in ("pp", "tl", "get", "pl", "io", "datasets"):
        module = getattr(al, part)
        for name in module.__all__:
            yield f"{part}.{name}", getattr(module, name)


PUBLIC = dict(public())
CLASS_METHODS = {
    f"LinearMixedModel.{name}": member
    for name, member in inspect.getmembers(al.LinearMixedModel, callable)
    if not name.startswith("_")
}


class TestPublicNames:
    def test_all_of_the_package(self):
        assert al.__all__ == sorted(al.__all__)
        for name in al.__all__:
            assert hasattr(al, name), name

    @pytest.mark.parametrize("part", ["pp", "tl", "get", "pl", "io", "datasets"])
    def test_all_is_what_is_there(self, part):
        """Every function without an underscore is in `__all__`, and nothing else; each is one file of its name."""
        module = getattr(al, part)
        assert module.__all__ == sorted(module.__all__)
        there = {name for name, value in vars(module).items() if inspect.isfunction(value) and not name.startswith("_")}
        assert there == set(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__module__ == f"annlmm.{part}._{name}", name

    @pytest.mark.parametrize("name", PUBLIC)
    def test_is_documented(self, name):
        function = PUBLIC[name]
        text = inspect.getdoc(function) or ""
        for section in ("Parameters", "Returns", "Raises", "Examples"):
            if section == "Parameters" and not inspect.signature(function).parameters:
                continue
            assert re.search(rf"^{section}\n-+$", text, flags=re.MULTILINE), f"{name}: no section {section}"
        assert "{fields}" not in text, f"{name}: the fields were not filled in"
        assert ">>> " in text

    @pytest.mark.parametrize("name", PUBLIC)
    def test_every_parameter_is_documented(self, name):
        function = PUBLIC[name]
        text = inspect.getdoc(function)
        section = text.split("Parameters\n----------\n")[1].split("\nReturns\n")[0] if "Parameters\n" in text else ""
        documented = {
            word.strip().lstrip("*")
            for line in re.findall(r"^(\S.*)$", section, flags=re.MULTILINE)
            for word in line.split(":")[0].split(",")
        }
        missing = set(inspect.signature(function).parameters) - documented
        assert not missing, f"{name}: {missing} not documented"

    @pytest.mark.parametrize("name", PUBLIC)
    def test_few_arguments_are_positional(self, name):
        """Scanpy's convention: the data and at most two more, then keywords."""
        positional = [
            parameter
            for parameter in inspect.signature(PUBLIC[name]).parameters.values()
            if parameter.kind is not parameter.KEYWORD_ONLY
        ]
        assert len(positional) <= 3, name

    @pytest.mark.parametrize("name", CLASS_METHODS)
    def test_methods_are_documented(self, name):
        assert (inspect.getdoc(CLASS_METHODS[name]) or "").strip(), name

    def test_the_class_is_documented(self):
        text = inspect.getdoc(al.LinearMixedModel)
        for section in ("Parameters", "Attributes", "Raises", "Examples"):
            assert re.search(rf"^{section}\n-+$", text, flags=re.MULTILINE), section

    def test_everything_is_annotated(self):
        for name, function in (PUBLIC | CLASS_METHODS).items():
            signature = inspect.signature(function)
            assert signature.return_annotation is not signature.empty, name
            for parameter in signature.parameters.values():
                if parameter.name not in ("self", "cls"):
                    assert parameter.annotation is not parameter.empty, f"{name}: {parameter.name}"


class TestSchema:
    def test_fields_are_unique(self):
        keys = [(field.owner, field.slot, field.name) for field in FIELDS]
        assert len(set(keys)) == len(keys)

    def test_fields_are_complete(self):
        for field in FIELDS:
            assert field.slot in ("obs", "obsm", "var", "varm", "uns"), field
            assert field.dtype, field
            assert field.doc, field
            assert not field.doc.endswith("."), field  # the docstring adds it
            # "/" and "." in keys do not survive h5ad and zarr
            assert not set("/.") & set(field.name), field

    def test_names_of_slots_carry_the_key(self):
        for field in FIELDS:
            if field.slot != "uns":
                assert "{key}" in field.name, field
            else:
                assert "{" not in field.name, field


def test_the_version_is_a_string():
    assert re.fullmatch(r"\d+\.\d+\.\d+.*", al.__version__)
    assert importlib.import_module("annlmm") is al
    assert (ROOT / "py.typed").exists()
