"""The page of published results: its intervals, probes, sheets and figures."""

from __future__ import annotations

import pytest
from made_up import write_run

from pcamlib.core.files import write_json
from pcamlib.report import published_page
from pcamlib.results import compact, frame, load
from pcamlib.results.published import published_folder, published_runs


@pytest.fixture
def own(tmp_path):
    return load(write_run(tmp_path / "phantom-demo", 2), 2)


@pytest.mark.slow
def test_the_page_of_a_build(own, tmp_path):
    published = published_runs()[0]
    text = published_page.page(own, {}, published_folder())
    assert text.startswith("# Published results") and f"book/reference/{published.name}.csv" in text
    # by use, Table 2, differences, power, two per judge, accepted and copies, the paper's, protocol and beside, trials
    least = 1 + 2 + 3 + 2 + 2 * len(frame.extractors(published.results)) + 2 + 2 + 2 + 1
    assert text.count('<div class="pcam-table ') >= least
    assert text.count("::::{dropdown} ") == text.count("\n::::\n")
    for part in (
        "Data: phantom (procedural",
        f"profile {published.provenance['profile']}",
        "JPEG",
        "too narrow",
        "the additional steps",
        " of 9 arms are above the stronger control",
    ):
        assert part in text
    assert "same data and profile" not in text and "same data and profile" in published_page.page(
        published.results, {}, published_folder()
    )
    assert "No run is published" in published_page.page(own, {}, tmp_path)


@pytest.mark.slow
def test_a_published_run_shows_its_intervals_and_its_probes(own, tmp_path):
    compact.write(own, tmp_path / "made-up.csv")
    row = {"regime": "transfer", "generator": "unet", "selection": "realism", "baseline": None}
    row |= {"auc": {"low": 0.8111, "high": 0.9222}, "traditional": {"low": -0.0111, "high": 0.0222, "q": None}}
    kept = {"slides": None, "test_n": 99, "power": [], "rows": [row]}
    write_json(tmp_path / "intervals" / "made-up.json", kept)
    text = published_page.page(own, {}, tmp_path)
    assert "(−1.11 to +2.22)" in text and "81.11 to 92.22" in text and "99 test patches" in text
    assert "Linear probe:" in text and "Table 2 by probes" in text
    assert "published, linear probe" in text and "this copy, linear probe" in text
