"""Small wrong changes to the code, one at a time, and whether the tests notice.

Each mutant changes one sign, comparison, degree of freedom (± 1), index or constant of `src/annlmm/model` or `src/annlmm/tl` in
a copy of the project, and runs the test files of that module until the first failure. A mutant that survives is either
equivalent (the result does not depend on what was changed) or a gap in the tests. The choice is by a seed: the same in every run.
Run it where the tests pass.
"""

from __future__ import annotations

import argparse
import ast
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from _common import Report, machine
from _common import parser as common_parser

ROOT = Path(__file__).parents[1]
# The tests of each module, the quickest that should notice first.
TESTS = {
    "model/gls": "test_model_association test_model_null",
    "model/profile": "test_model_profile_search test_model_null",
    "model/search": "test_model_profile_search test_model_null",
    "model/space": "test_model_space",
    "model/null": "test_model_null",
    "model/satterthwaite": "test_model_null test_digits",
    "model/hypothesis": "test_model_association test_digits",
    "model/association": "test_model_association",
    "model/response": "test_model_null",
    "model/statistics": "test_model_association test_associate",
    "model/sums": "test_model_association test_array_types",
    "model/sparse_sums": "test_model_association test_array_types",
    "model/triangular": "test_model_association test_associate",
    "model/grouped": "test_exact test_model_association",
    "model/exact": "test_exact test_refit",
    "model/refit": "test_refit test_exact",
    "model/refit_kernels": "test_refit test_exact",
    "model/rotation": "test_exact test_associate",
    "model/basis": "test_model_eigen_basis",
    "model/eigen": "test_model_eigen_basis",
    "model/design": "test_model_design",
    "model/variance_test": "test_model_variance_test test_digits",
    "model/lmm": "test_lmm_class",
    "model/rotated": "test_lmm_class",
    "model/donor_space": "test_eqtl_model",
    "model/eqtl": "test_eqtl_model",
    "model/eqtl_cis": "test_eqtl_model test_map_eqtl",
    "model/eqtl_trans": "test_eqtl_model test_map_eqtl",
    "model/eqtl_permutation": "test_eqtl_model",
    "model/eqtl_conditional": "test_eqtl_model test_map_eqtl",
    "model/combine": "test_eqtl_model",
    "model/eqtl_interaction_tests": "test_eqtl_interaction",
    "model/eqtl_interaction_fit": "test_eqtl_interaction",
    "model/eqtl_interaction_sums": "test_eqtl_interaction",
    "model/responses": "test_responses test_variance_components",
    "model/responses_newton": "test_responses test_variance_components",
    "model/responses_term": "test_differential",
    "model/responses_tests": "test_differential",
    "model/kenward_roger": "test_differential",
    "model/moderation": "test_differential",
    "model/weights": "test_differential",
    "tl/_loco": "test_loco",
    "tl/_pass": "test_array_types test_associate",
    "tl/_eqtl_setup": "test_map_eqtl",
    "tl/_eqtl_places": "test_map_eqtl",
}
# Survivors that were looked at, by the code that is changed: why no result depends on it.
EQUIVALENT = {
    "to_gene = np.zeros((counts.size, 0))": "one more coordinate, 0 for every variant and gene",
    "if stop < windows.gene.size and stop - start < MOST_GENES:": "65 genes to a product in place of 64",
    "if not m11 > 0:": "differs where m₁₁ is exactly 0",
    "space = RemlSpace(design.n, design.p, basis.eigenvalues, make_angles(t, design.n + t.shape[0]))": "any n above the rank does",
    "if np.abs(step).max() < 1e-10:": "differs where a step is exactly 1e-10",
    "scale = 1.0 / np.sqrt(np.diagonal(qq))": "a scale that is taken out again",
    "batch, held = [], 0": "one column less to a batch",
    "if path is None and n_pairs * PAIR_BYTES > settings.kernel_memory:": "differs where the memory is met to the byte",
}
COMPARED = {ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="}
SWAPPED = {ast.Add: "-", ast.Sub: "+", ast.Mult: "/", ast.Div: "*"}
WRITTEN = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/", ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!="}  # fmt: skip


@dataclass(frozen=True)
class Mutant:
    """One change: `old` at (line, column) becomes `new`."""

    module: str
    line: int
    column: int
    old: str
    new: str

    def apply(self, source: str) -> str:
        lines = source.splitlines(keepends=True)
        # Columns of `ast` count bytes.
        text = lines[self.line - 1].encode()
        assert text[self.column :].startswith(self.old.encode()), self
        lines[self.line - 1] = (text[: self.column] + self.new.encode() + text[self.column + len(self.old) :]).decode()
        return "".join(lines)


def mutants(module: str, source: str) -> Iterator[Mutant]:
    """Every change that is known, in the order of the source."""
    lines = [line.encode() for line in source.splitlines()]

    def between(left: ast.expr, right: ast.expr, operator: type[ast.AST], new: str) -> Iterator[Mutant]:
        """The operator between two operands on one line."""
        if left.end_lineno != right.lineno or left.end_lineno is None or left.end_col_offset is None:
            return
        gap = lines[left.end_lineno - 1][left.end_col_offset : right.col_offset]
        old = WRITTEN[operator]
        if gap.strip(b" ()") == old.encode():
            yield Mutant(module, left.end_lineno, left.end_col_offset + gap.index(old.encode()), old, new)

    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.BinOp) and type(node.op) in SWAPPED:
            texts = (ast.unparse(node.left), ast.unparse(node.right))
            if not any(text.startswith(("'", '"', "f'", 'f"')) for text in texts):
                yield from between(node.left, node.right, type(node.op), SWAPPED[type(node.op)])
        elif isinstance(node, ast.Compare) and type(node.ops[0]) in COMPARED:
            yield from between(node.left, node.comparators[0], type(node.ops[0]), COMPARED[type(node.ops[0])])
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and node.lineno == node.end_lineno:
            yield Mutant(module, node.lineno, node.col_offset, "-", "+")
        elif isinstance(node, ast.Constant) and type(node.value) in (int, float) and node.value in (0, 1, 2, 0.5):
            old = lines[node.lineno - 1][node.col_offset : node.end_col_offset].decode()
            yield Mutant(module, node.lineno, node.col_offset, old, f"({old} + 1)")


def choose(number: int, seed: int) -> list[Mutant]:
    """`number` mutants, as many from each module as from any other."""
    rng = np.random.default_rng(seed)
    modules = [str(module) for module in rng.permutation(list(TESTS))]
    chosen: list[Mutant] = []
    while len(chosen) < number:
        for module in modules[: number - len(chosen)]:
            found = [m for m in sorted_mutants(module) if m not in chosen]
            chosen.append(found[int(rng.integers(len(found)))])
    return sorted(chosen, key=lambda m: (m.module, m.line, m.column))


def sorted_mutants(module: str) -> list[Mutant]:
    """Those of one module, less those of its docstrings, annotations and constants at the top."""
    source = (ROOT / "src" / "annlmm" / f"{module}.py").read_text(encoding="utf-8")
    inside: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            inside.update(range(node.body[0].lineno, (node.end_lineno or 0) + 1))
    raised = {
        line
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Raise)
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    return [m for m in mutants(module, source) if m.line in inside - raised]


def outcome(mutant: Mutant, folder: Path, limit: float) -> str:
    """'killed', 'killed (no end)' or 'SURVIVED'."""
    path = folder / "src" / "annlmm" / f"{mutant.module}.py"
    source = path.read_text(encoding="utf-8")
    files = [f"tests/{name}.py" for name in TESTS[mutant.module].split()]
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *files]
    environment = os.environ | {
        "PYTHONPATH": str(folder / "src"),
        "OPENBLAS_NUM_THREADS": "1",
        "NUMBA_NUM_THREADS": "1",
    }
    path.write_text(mutant.apply(source), encoding="utf-8")
    try:
        done = subprocess.run(
            command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=limit
        )
        # 1: tests failed; anything else (a test file that cannot be read, say) is not the mutant's doing.
        result = {0: "SURVIVED", 1: "killed"}.get(done.returncode, f"NOT RUN (status {done.returncode})")
    except subprocess.TimeoutExpired:
        result = "killed (no end)"
    finally:
        path.write_text(source, encoding="utf-8")
    return result


class Page(Report):
    def __init__(self, arguments: argparse.Namespace) -> None:
        self.name, self.arguments, self.lines = "mutants", arguments, []
        self.text("# Mutants")
        command = f"python benchmarks/mutants.py --number {arguments.number} --seed {arguments.seed}"
        self.text(f"`{command}`: {machine()}; Python {platform.python_version()}.")


def main() -> None:
    options = common_parser(__doc__)
    options.add_argument("--number", type=int, default=45, help="of mutants (default 45: one of each module)")
    options.add_argument("--seed", type=int, default=0, help="of the choice (default 0)")
    options.add_argument("--limit", type=float, default=300, help="seconds for the tests of one mutant (default 300)")
    options.add_argument("--only", nargs="*", default=None, help="modules, e.g. model/gls")
    options.add_argument("--list", action="store_true", help="show the choice, run nothing")
    arguments = options.parse_args()
    chosen = [
        m for m in choose(3 if arguments.small else arguments.number, arguments.seed)
        if arguments.only is None or m.module in arguments.only
    ]  # fmt: skip
    if arguments.list:
        print(*chosen, sep="\n")
        return
    page = Page(arguments)
    page.table("module", "code", "change", "outcome")
    survived = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "project"
        shutil.copytree(
            ROOT, folder, ignore=shutil.ignore_patterns(".git", ".venv*", ".ci-out", "__pycache__", "_build")
        )
        for mutant in chosen:
            code = (folder / "src" / "annlmm" / f"{mutant.module}.py").read_text(encoding="utf-8").splitlines()
            result = outcome(mutant, folder, arguments.limit)
            text = code[mutant.line - 1]
            if result == "SURVIVED" and (why := EQUIVALENT.get(text.strip())):
                result = f"survived, equivalent: {why}"
            survived += result.lower().startswith("survived")
            # Before the change, the whole line up to it.
            place = len(text.encode()[: mutant.column].decode().lstrip()) + 1
            shown = text.strip().replace("|", "\\|")
            page.row(mutant.module, f"`{shown}`", f"`{mutant.old}` → `{mutant.new}` at {place}", result)
    page.end()
    page.text(f"{len(chosen) - survived} of {len(chosen)} killed.")
    page.write()


if __name__ == "__main__":
    main()
