"""Print constraints for pip that hold every dependency at the lower bound that pyproject.toml gives it.

    python .ci/minimum.py > minimum.txt && pip install -c minimum.txt '.[test]'

The bounds of the dependencies and of the extra `test`, with the extras of annlmm that it names, are read from pyproject.toml, so
that the two cannot disagree. What those packages depend on themselves is left to pip.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

REQUIREMENT = re.compile(r"(?P<name>[\w.-]+)(\[(?P<extras>[\w,\s-]+)\])?(?P<bounds>[^;]*)")


def constraints(project: dict, requirements: list[str]) -> Iterator[str]:
    """`name==bound` of each, in their order; those of annlmm's own extras where they are asked for."""
    for requirement in requirements:
        found = REQUIREMENT.fullmatch(requirement.split(";")[0].strip())
        if found is None:
            raise ValueError(f"pyproject.toml: {requirement!r} is no requirement that this script reads")
        name, extras, bounds = found["name"], found["extras"], found["bounds"]
        if name == project["name"]:
            for extra in extras.split(","):
                yield from constraints(project, project["optional-dependencies"][extra.strip()])
            continue
        lower = [bound.strip()[2:] for bound in bounds.split(",") if bound.strip().startswith(">=")]
        if lower:
            yield f"{name}=={lower[0].strip()}"
        elif not any(other.startswith(name) and ">=" in other for other in project["dependencies"]):
            raise ValueError(f"pyproject.toml: {requirement!r} has no lower bound")


def main() -> None:
    path = Path(__file__).resolve().parents[1] / "pyproject.toml"
    project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
    wanted = [*project["dependencies"], f"{project['name']}[test]"]
    sys.stdout.write("\n".join(dict.fromkeys(constraints(project, wanted))) + "\n")


if __name__ == "__main__":
    main()
