"""The table of claims: a column per source, and all numbers behind each verdict."""

import pytest
from made_up import write_run

from pcamlib.report import claim_table
from pcamlib.report.tables import render
from pcamlib.results import frame, load
from pcamlib.results.claims import SUPPORTED, UNDECIDED
from pcamlib.results.published import published_runs


@pytest.fixture
def evidence(tmp_path):
    frame.write(load(write_run(tmp_path / "runs" / "large", 3)), tmp_path / "large.csv")
    return claim_table.sources(load(write_run(tmp_path / "runs" / "own", 2)), published_runs(tmp_path))


def test_a_column_per_source(evidence):
    table = claim_table.table(evidence)
    assert len(table.data) == 13 and [s.name for s in evidence] == ["paper", "published: large", "this run"]
    assert list(table.data["Verdict"]) == ["paper", "published: large", "this run"]
    assert table.data["Verdict", "paper"].iloc[:3].tolist() == [SUPPORTED, SUPPORTED, UNDECIDED]
    assert "3 subsets of 256" in table.notes and "2 subsets of 256" in table.notes and "too narrow" in table.notes
    assert "published: large" in render(table)


def test_all_contrasts_are_shown_with_their_numbers(evidence):
    html = claim_table.details(evidence)
    assert html.count("<details>") == html.count("<table") == 13
    assert "not run: the paper prints no number for it" in html and "n = 5" in html
    assert "+50.00 (the same in every subset), p = 0.250, n = 3" in html
    assert claim_table.counts(evidence[0]) == (
        "Paper: 2 supported, 0 contradicted, 11 undecided at this scale, 4 of them for lack of numbers."
    )


def test_without_any_result_every_claim_is_undecided():
    evidence = claim_table.sources(frame.tidy([]), [])
    assert [s.name for s in evidence] == ["paper", "this run"]
    assert set(claim_table.table(evidence).data["Verdict", "this run"]) == {UNDECIDED}
