"""The readers say what they read, and how long it took."""

from __future__ import annotations

import re

from helpers import messages

import annlmm as al


def test_lines(tmp_path):
    (tmp_path / "toy.bed").write_bytes(bytes([0x6C, 0x1B, 1, 0b1000]))
    (tmp_path / "toy.bim").write_text("1 rs1 0 1000 A G\n")
    (tmp_path / "toy.fam").write_text("f1 ann 0 0 2 1.5\nf2 bob 0 0 1 -9\n")
    (tmp_path / "geno.txt").write_text("rs1, A, G, 0.5, 2, NA\nrs2, C, T, 1, 0, 1\n")
    (tmp_path / "pheno.txt").write_text("1.5\nNA\n0.5\n")
    (tmp_path / "toy.cXX.txt").write_text("0.335\t-0.022\n-0.022\t0.303\n")
    with messages("info") as seen:
        al.io.read_plink(tmp_path / "toy")
        al.io.read_bimbam(tmp_path / "geno.txt", tmp_path / "pheno.txt")
        al.io.read_gemma_kinship(tmp_path / "toy.cXX.txt")
    assert [re.sub(r"\d+\.\d s", "TIME", line) for line in seen] == [
        "INFO read_plink: 2 donors × 1 variants from toy.bed, toy.bim, toy.fam (TIME)",
        "INFO read_bimbam: 3 donors × 2 variants from geno.txt, pheno.txt (TIME)",
        "INFO read_gemma_kinship: 2 × 2 from toy.cXX.txt (TIME)",
    ]
    with messages("warning") as seen:
        al.io.read_plink(tmp_path / "toy")
    assert not seen
