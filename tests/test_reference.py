"""The page of published results: every column of the paper has its caveat, every run its scale, every gap its word."""

from __future__ import annotations

import pytest
from made_up import not_run, write_run

from pcamlib import ledger, paper, reference, stats
from pcamlib.store import write_json


@pytest.fixture
def own(tmp_path):
    return stats.collect(write_run(tmp_path / "phantom-demo", 2), 2)


def test_protocols_differ_line_by_line(own):
    published = ledger.published()[0]
    lines = {row["label"]: row for row in reference.protocol({"slice": published.rows, "this run": own}).rows}
    assert lines["data"]["run 0"].endswith("re-encoded as JPEG (quality 75, halved chroma)")
    assert lines["data"]["run 1"] == "phantom: procedural patches, no tissue"
    assert (lines["classifier starts from"]["paper"], lines["classifier starts from"]["run 0"]) == (
        "ImageNet weights", "random initialisation",
    )  # fmt: skip
    assert (lines["subsets × real patches"]["paper"], lines["subsets × real patches"]["run 1"]) == (
        "5 × 26,215",
        "2 × 256",
    )
    assert lines["features of the distance"]["run 1"] == "judge-a" and lines["seeds of a subset"]["run 1"] == "1"
    sections = " ".join(row["section"] for row in reference.protocol({"this run": own}).rows)
    for column in (
        "FID",
        "precision",
        "recall",
        "F1",
        "accuracy",
        "sensitivity",
        "specificity",
        "Table 2: every column",
    ):
        assert column in sections


def test_paper_published_and_own_stand_beside_each_other(tmp_path):
    root = write_run(tmp_path / "run", 3)
    for subset in range(3):
        not_run(root / f"subset-{subset}/results/classification-unet.json", regime="transfer", selection="class")
    rows = stats.collect(root, 3)
    drawn = {("transfer", "unet", "realism"): {"low": -0.01, "high": 0.05}}
    lines = {row["label"]: row for row in reference.beside({"a": rows, "b": rows}, {"a": drawn, "b": {}}).rows}
    best = lines["U-Net transfer (realism)"]
    assert (best["paper"], best["run 0"], best["run 1"]) == (
        "+0.55",
        "+2.40 (−1.00 to +5.00)",
        "+2.40 (+2.40 to +2.40)",
    )
    assert best["auc 0"] == "88.40 ± 1.00"
    assert {lines["U-Net transfer (class-based)"][key] for key in ("run 0", "auc 0")} == {"not run"}
    assert lines["Traditional augmentation"]["run 0"] == "+0.00" and lines["Twice the real data"]["paper"] == "–"
    assert len(lines) == len(paper.TABLE_2) + 9 + 3


def test_the_page_of_a_build(own, tmp_path):
    published = ledger.published()[0]
    text = reference.page(own, None, ledger.folder())
    assert text.startswith("# Published results") and f"book/reference/{published.name}.json" in text
    assert (
        text.count('<div class="pcam-table">') == 2 + len(stats.extractors(published.rows)) + 1 + 1
    )  # protocol, AUC, judges, Table 2, trials
    for part in (
        "Data: phantom (procedural",
        f"profile {published.scale['profile']}",
        "JPEG",
        "too narrow",
        "extra steps",
    ):
        assert part in text
    assert "same data and profile" not in text and "same data and profile" in reference.page(
        published.rows, None, ledger.folder()
    )
    assert "No run is published" in reference.page(own, None, tmp_path)


def test_a_published_run_with_a_bootstrap_shows_it(own, tmp_path):
    write_json(tmp_path / "made-up.json", own)
    row = {
        "regime": "transfer",
        "generator": "unet",
        "selection": "realism",
        "traditional": {"low": -0.0111, "high": 0.0222},
    }
    write_json(tmp_path / "bootstrap" / "made-up.json", {"rows": [row]})
    assert "(−1.11 to +2.22)" in reference.page(own, None, tmp_path)
