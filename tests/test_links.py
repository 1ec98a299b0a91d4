"""Links of the README, the documentation, the tutorials and the docstrings, checked without a network.

What points into the project must be there: files, pages, headings, functions, also where the address is that of the repository
or of the documentation on the web. Other addresses must be well formed.
"""

from __future__ import annotations

import json
import os
import re
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import annlmm as al

ROOT = Path(__file__).resolve().parents[1]
SOURCE = Path(al.__file__).parent
REPOSITORY = re.compile(r"https://github\.com/scverse/annlmm/(?:blob|tree)/main/(.+)")
DOCUMENTATION = re.compile(r"https://annlmm\.readthedocs\.io/en/latest/(.+)")
# Made by docs/conf.py when the documentation is built.
BUILT = {"docs/tutorials/index.md": "docs/conf.py", "docs/tutorials/main_job.md": "tutorials/main_job.py"}
# Not part of a source distribution.
LEFT_OUT = (".ci", ".github", "benchmarks")

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "benchmarks").rglob("*.md"),
        *(ROOT / ".github").rglob("*.md"),
        *(ROOT / "tutorials").glob("*.ipynb"),
    ]
)


def name_of(path):
    return path.relative_to(ROOT).as_posix()


@cache
def text_of(path):
    """The prose of a page: without code, which may hold brackets of its own."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return re.sub(r"^(`{3,}|~{3,}|:{3,}).*?^\1", "", text, flags=re.DOTALL | re.MULTILINE)


@cache
def anchors_of(path):
    """Names of the headings as MyST and GitHub make them, and of `(label)=`."""
    text = text_of(path)
    titles = re.findall(r"^#{1,6} +(.+?) *$", text, flags=re.MULTILINE)
    plain = [re.sub(r"`|\*|\[([^\]]*)\]\([^)]*\)|\{\w+\}", r"\1", title).lower() for title in titles]
    labels = re.findall(r"^\(([\w-]+)\)=", text, flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in plain} | set(labels)


def links_of(path):
    """Targets of Markdown links and pictures, and of bare addresses in angle brackets."""
    text = re.sub(r"(?<!`)`[^`\n]+`(?!`)", "", text_of(path))
    yield from re.findall(r"\]\(\s*<?([^()\s>]+(?:\([^()\s]*\)[^()\s>]*)*)>?(?:\s+\"[^\"]*\")?\s*\)", text)
    yield from re.findall(r"^\[[^\]]+\]:\s*(\S+)", text, flags=re.MULTILINE)
    yield from re.findall(r"<(https?://[^>\s]+)>", text)


def missing(target, origin):
    """What is wrong with a path of the project, with or without an anchor; None where nothing is."""
    place, _, anchor = target.partition("#")
    path = Path(os.path.normpath(origin.parent / place)) if place else origin
    if not path.is_relative_to(ROOT):
        return "leads out of the project"
    name = path.relative_to(ROOT).as_posix()
    if name in BUILT:
        return None if (ROOT / BUILT[name]).exists() else f"{BUILT[name]} is not there"
    if name.startswith("docs/tutorials/"):  # copied from tutorials/
        path = ROOT / "tutorials" / path.name
    elif name.startswith("docs/generated/") and path.suffix in (".png", ".svg"):  # copied from benchmarks/
        path = ROOT / "benchmarks" / "results" / path.name
        if f'"{path.name}"' not in (ROOT / "docs" / "conf.py").read_text(encoding="utf-8"):
            return "docs/conf.py does not copy it"
    if not path.exists():
        folder = path.relative_to(ROOT).parts[0]
        if folder in LEFT_OUT and not (ROOT / folder).exists():
            return None
        return "is not there"
    if anchor and path.suffix in (".md", ".ipynb") and anchor not in anchors_of(path):
        return f"has no heading {anchor!r}, only {', '.join(sorted(anchors_of(path)))}"
    return None


def malformed(url):
    """What is wrong with an address of the web, as far as it can be seen."""
    parts = urlsplit(url)
    if parts.scheme != "https":
        return "is not https"
    if not re.fullmatch(r"([a-z0-9]([a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}", parts.netloc):
        return "has no valid host"
    if re.search(r"[\s<>\"'{}|\\^`]|[.,;:]$", url):
        return "has characters that an address cannot have there"
    if parts.netloc == "doi.org" and not re.fullmatch(r"/10\.\d{4,9}/\S+", parts.path):
        return "is no DOI"
    return None


def wrong(target, origin):
    if re.match(r"[a-z]+:", target) is None:
        return missing(target, origin)
    if (found := REPOSITORY.fullmatch(target)) is not None:
        return missing(found.group(1), ROOT / "README.md")
    if (found := DOCUMENTATION.fullmatch(target)) is not None:
        page, _, anchor = found.group(1).partition("#")
        page = page.removesuffix(".html")
        notebook = ROOT / "tutorials" / f"{page.removeprefix('tutorials/')}.ipynb"
        suffix = "ipynb" if page.startswith("tutorials/") and notebook.exists() else "md"
        return missing(f"docs/{page}.{suffix}" + (f"#{anchor}" if anchor else ""), ROOT / "README.md")
    return None if target.startswith("mailto:") else malformed(target)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    # docs/conf.py copies the notebooks into the documentation.
    origin = ROOT / "docs" / "tutorials" / page.name if page.suffix == ".ipynb" else page
    problems = {target: wrong(target, origin) for target in links_of(page)}
    assert not {target: problem for target, problem in problems.items() if problem}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_functions_that_are_named_exist(page):
    """``{func}`annlmm.tl.fit_null` `` and `al.tl.fit_null`."""
    text = text_of(page)
    names = {name for _, name in re.findall(r"\{(func|class|meth|attr|obj)\}`~?annlmm\.([\w.]+)`", text)}
    names |= set(re.findall(r"`al\.((?:pp|tl|get|pl|io|datasets)\.\w+)(?![\w*…])", text))
    for name in names:
        if name.endswith("_"):  # al.pp.kernel_*
            continue
        value = al
        for part in name.split("."):
            assert hasattr(value, part), f"{name_of(page)}: annlmm.{name}"
            value = getattr(value, part)


@pytest.mark.parametrize("path", sorted(SOURCE.rglob("*.py")), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_addresses_in_docstrings_are_well_formed(path):
    for url in re.findall(r"https?://[^\s)>\"'`\]]+", path.read_text(encoding="utf-8")):
        assert malformed(url.rstrip(".,;:")) is None, url


def test_the_check_sees_what_is_wrong(tmp_path):
    readme = ROOT / "README.md"
    for target, problem in {
        "docs/no_such_page.md": "is not there",
        "docs/faq.md#no-such-heading": "has no heading",
        "../elsewhere.md": "leads out",
        "https://github.com/scverse/annlmm/blob/main/NO_FILE": "is not there",
        "https://annlmm.readthedocs.io/en/latest/no_page.html": "is not there",
        "https://annlmm.readthedocs.io/en/latest/model.html#none": "has no heading",
        "http://example.org/": "is not https",
        "https://nowhere": "has no valid host",
        "https://doi.org/nmeth.1681": "is no DOI",
        "https://example.org/a.": "characters",
    }.items():
        assert problem in wrong(target, readme), target
    for target in ("docs/faq.md#which-kernel", "LICENSE", "https://doi.org/10.1111/j.1467-9868.2004.00438.x"):
        assert wrong(target, readme) is None, target


def test_pictures_of_the_readme_are_here_and_made_by_a_script():
    pictures = re.findall(r"!\[[^\]]*\]\((?!https://)([^)]+)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert pictures
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    for picture in pictures:
        assert (ROOT / picture).stat().st_size < 500_000
        assert re.search(rf"python (\S+\.py) --out {re.escape(picture)}", recipes), f"no command for {picture}"
