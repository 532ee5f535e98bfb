"""The table of claims: a column per source, and all numbers behind each verdict."""

import pytest
from made_up import write_run

from pcamlib.report import claim_table
from pcamlib.report.tables import render
from pcamlib.results import claims, compact, frame, load
from pcamlib.results.claims import SUPPORTED, UNTESTABLE
from pcamlib.results.published import published_runs


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    tmp_path = tmp_path_factory.mktemp("runs")
    compact.write(load(write_run(tmp_path / "runs" / "large", 3)), tmp_path / "large.csv")
    return claim_table.sources(load(write_run(tmp_path / "runs" / "own", 2)), published_runs(tmp_path))


COLUMNS = [
    "paper", "published: large, fine-tuned network", "published: large, linear probe",
    "this run, fine-tuned network", "this run, linear probe",
]  # fmt: skip


@pytest.mark.slow
def test_a_column_per_source_and_device(evidence):
    table = claim_table.table(evidence)
    assert len(table.data) == 13 and [s.name for s in evidence] == list(table.data) == COLUMNS
    assert table.data["paper"].tolist()[:9:4] == [SUPPORTED, "not supported", UNTESTABLE]
    paper = [claim_table.verdict(rule, evidence[0]) for rule in claims.RULES]
    assert paper[:3] == [SUPPORTED, SUPPORTED, "not supported by the paper's own table: five subsets cannot show it"]
    assert paper[4] == paper[2], "its negative differences are those of other generators, as the claim wants it"
    assert paper[8] == "not testable here because the paper prints no values by subset"
    assert "3 subsets of 256" in table.notes and "2 subsets of 256" in table.notes
    assert "published: large" in render(table) and "undecided at this scale" not in render(table)
    plans = [claim_table.decidable(rule) for rule in claims.RULES]
    assert plans[0] == "From 3 subsets on for its smallest effect, arms paired, 3 from means alone."
    assert plans[2] == "From 23 subsets on for its smallest effect, arms paired, 39 from means alone."
    assert plans[6].endswith("For the rest the paper prints no effect.")
    assert plans[9] == plans[12] == "Unknown: the paper prints no effect to plan with."


def test_a_device_below_the_baselines_has_its_sentence_in_place_of_verdicts(tmp_path):
    df = load(write_run(tmp_path / "run", 2))
    high = (df["kind"] == "classification") & (df["arm"] == "texture") & (df["metric"] == "auc")
    df.loc[high, "value"] = 0.865
    tuned, probe = claim_table.sources(df, [])[1:]
    sentence = "no verdict: Traditional augmentation reaches AUC 85.50 %, not above the best trivial baseline (texture"
    assert claim_table.verdict(claims.rule_8, tuned).startswith(sentence)
    assert not claim_table.verdict(claims.rule_8, probe).startswith("no verdict"), "87.5 is above it"
    assert "8 no verdict" in claim_table.counts(tuned) and "no verdict" not in claim_table.counts(probe)
    without = df[~df["regime"].isin(("colour", "texture", "colour-texture", "random-features"))]
    assert (
        claim_table.verdict(claims.rule_8, claim_table.sources(without, [])[1])
        == "no verdict: No trivial baseline was run"
    )


@pytest.fixture(scope="module")
def page(evidence):
    return claim_table.page(evidence)


@pytest.mark.slow
def test_all_contrasts_are_shown_with_their_numbers(evidence, page):
    assert page.count('<details class="pcam-more">') == page.count("<table") == page.count("\n(claim-") == 13
    assert "not run: the paper prints no number for it" in page
    first = claim_table.numbers(1, evidence).data
    assert first.loc[("FID of HistoGAN − U-Net", COLUMNS[1])].tolist() == [
        "+50.00",
        "the same in every subset",
        "0.250",
        "3",
    ]
    assert first.loc[("FID of HistoGAN − U-Net", "paper"), "n"] == "5" and len(first) == 6 * len(COLUMNS)
    assert claim_table.counts(evidence[0]) == "Paper: 2 supported, 6 not testable here, 5 not supported."


@pytest.mark.slow
def test_every_claim_is_linked_to_its_section(evidence, page):
    linked = claim_table.linked(evidence)
    for number in range(1, 14):
        assert f"<claim-{number}>`" in linked and f"\n(claim-{number})=\n## {number}. " in page


def test_a_device_that_trained_on_no_generated_patches_says_so_once(tmp_path):
    df = load(write_run(tmp_path / "run", 2))
    real = df[(df["kind"] != "classification") | df["generator"].isna()]
    source = claim_table.sources(real, [])[1]
    text = claim_table.verdict(claims.RULES[4], source)
    assert text == "not testable here because no classifier was trained with generated patches"


def test_without_any_result_no_claim_can_be_tested():
    evidence = claim_table.sources(frame.tidy([]), [])
    assert [s.name for s in evidence] == ["paper", "this run"]
    assert claim_table.verdict(claims.rule_1, evidence[1]).startswith(f"{UNTESTABLE} because ")
    assert claim_table.verdict(claims.rule_8, evidence[1]) == "no verdict: No trivial baseline was run"
