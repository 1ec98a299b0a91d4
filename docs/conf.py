"""Sphinx configuration.

Set ANNLMM_DOCS_OFFLINE=1 where there is no network: references to other projects are then left as plain text instead of
being looked up (intersphinx), so that a build with warnings as errors passes.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent
ROOT = DOCS.parent

project = "annlmm"
author = "annlmm developers"
copyright = f"2026, {author}"
version = release = installed_version("annlmm")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx_copybutton",
]
if os.environ.get("ANNLMM_DOCS_OFFLINE") != "1":
    extensions.append("sphinx.ext.intersphinx")

intersphinx_mapping = {
    "anndata": ("https://anndata.readthedocs.io/en/stable/", None),
    "matplotlib": ("https://matplotlib.org/stable/", None),
    "numpy": ("https://numpy.org/doc/stable/", None),
    "pandas": ("https://pandas.pydata.org/docs/", None),
    "python": ("https://docs.python.org/3/", None),
    "scanpy": ("https://scanpy.readthedocs.io/en/stable/", None),
    "scipy": ("https://docs.scipy.org/doc/scipy/", None),
}

exclude_patterns = ["_build", "jupyter_execute", "**.ipynb_checkpoints"]
templates_path = ["_templates"]

autosummary_generate = True
default_role = "literal"
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
napoleon_google_docstring = False
napoleon_use_rtype = False
maximum_signature_line_length = 100

myst_enable_extensions = ["amsmath", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_timeout = 300
nb_execution_raise_on_error = True
nb_merge_streams = True

html_theme = "sphinx_book_theme"
html_title = "annlmm"
html_static_path = ["_static"]
html_theme_options = {
    "path_to_docs": "docs",
    "repository_branch": "main",
    "repository_url": "https://github.com/scverse/annlmm",
    "use_issues_button": True,
    "use_repository_button": True,
}
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
copybutton_exclude = ".linenos, .gp, .go"


def write_if_changed(path: Path, text: str) -> None:
    """Keep the time stamp of what did not change, so that Sphinx reads it only once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def slot_tables(fields: Iterable[Any]) -> str:
    """One Markdown table per writing function from the entries of the schema."""
    by_owner: dict[str, list[Any]] = {}
    for field in fields:
        by_owner.setdefault(field.owner, []).append(field)

    def cell(text: str) -> str:
        return " ".join(text.split()).replace("|", "\\|")

    def where(field: Any) -> str:
        slot, _, condition = field.slot.partition(" ")
        keys = f'[key]["{field.name}"]' if slot == "uns" else f'["{field.name}"]'
        return f"`.{slot}{keys}` {condition}".strip()

    lines = []
    for owner, entries in by_owner.items():
        functions = "al.pp.kernel_*" if owner == "kernel" else f"al.tl.{owner}"
        lines += [f"## `{functions}`", "", "| Field | Type | Meaning |", "| --- | --- | --- |"]
        lines += [f"| {where(e)} | {cell(e.dtype)} | {cell(e.doc)} |" for e in entries]
        lines.append("")
    return "\n".join(lines)


def write_slots() -> None:
    """generated/slots.inc: what `slots.md` includes."""
    from annlmm._slots.schema import FIELDS

    write_if_changed(DOCS / "generated" / "slots.inc", slot_tables(FIELDS))


def write_tutorials() -> None:
    """tutorials/: the index and the notebooks of the repository, to be executed, and the script of the README."""
    source, target = ROOT / "tutorials", DOCS / "tutorials"
    pages = [source / "index.md", *sorted(source.glob("*.ipynb"))]
    wanted = {"main_job.md", *(page.name for page in pages)}
    target.mkdir(exist_ok=True)
    for stale in target.iterdir():
        if stale.is_file() and stale.name not in wanted:
            stale.unlink()
    for page in pages:
        copy = target / page.name
        if not copy.exists() or copy.read_bytes() != page.read_bytes():
            shutil.copyfile(page, copy)
    script = "```{literalinclude} ../../tutorials/main_job.py\n:language: python\n```\n"
    intro = "The script behind the README's picture: it simulates a cohort, fits, tests and plots.\n"
    write_if_changed(target / "main_job.md", f"# The main job\n\n{intro}\n{script}")


def write_figures() -> None:
    """generated/: the figures of the benchmarks that pages show."""
    (DOCS / "generated").mkdir(exist_ok=True)
    for name in ("differential.png", "eqtl_validity.png"):
        shutil.copyfile(ROOT / "benchmarks" / "results" / name, DOCS / "generated" / name)


def setup(app: Any) -> None:
    """Write the generated pages before Sphinx looks for sources."""
    app.connect("config-inited", lambda app, config: (write_slots(), write_figures(), write_tutorials()))
