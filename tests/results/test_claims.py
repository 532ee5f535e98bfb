"""Every rule of the ledger, on results made up to be for the claim, against it, and neither."""

from __future__ import annotations

import numpy as np
import pytest

from pcamlib.core import paper
from pcamlib.core.files import write_json
from pcamlib.report import claim_table
from pcamlib.report.tables import render
from pcamlib.results import claims, frame
from pcamlib.results.arms import all_arms
from pcamlib.results.claims import CONTRADICTED, SUPPORTED, UNDECIDED
from pcamlib.results.published import published_runs

G = paper.GENERATORS
FID = {"histogan": 100.0, "unet": 50.0, "dit": 40.0}
NEAR = {"histogan": 0.1, "unet": 0.4, "dit": 0.5}
AUC = {
    "histogan": {"augmentation": 0.84, "transfer": 0.83},
    "unet": {"augmentation": 0.88, "transfer": 0.89},
    "dit": {"augmentation": 0.82, "transfer": 0.87},
}
ALONE = {"histogan": 0.6, "unet": 0.7, "dit": 0.75}
SCALE = {
    "data": "made up", "phantom": False, "profile": "p", "n_real": 100, "device": "cpu", "precision": "fp32",
    "threads": 1, "version": "0", "seconds": 1.0, "created": "2026-01-01", "data_sha": "d", "profile_sha": "p",
}  # fmt: skip


def truth() -> dict[tuple, dict[str, float]]:
    """Means in which all thirteen claims hold: traditional 0.85, U-Net above it, the others not always."""
    means: dict[tuple, dict[str, float]] = {}
    gain = {"none": 0.0, "realism": 0.01, "class": 0.005}
    for g, s in claims.SETS:
        worse = {"none": 0, "realism": 5, "class": 6}[s]
        means["quality", g, s] = {
            "fid": FID[g] + worse,
            "precision": NEAR[g] - worse / 200,
            "recall": 0.0 if g == "histogan" else NEAR[g] / 2,
            "label_auc": 0.8 + 0.1 * (s == "class"),
        }
        for regime in claims.MIXED:
            sign = -1 if g == "dit" else 1
            means[regime, g, s] = {"auc": AUC[g][regime] + sign * gain[s]}
        means["synthetic", g, s] = {"auc": ALONE[g] - worse / 1000}
    for regime, auc in {
        "baseline": 0.80,
        "traditional": 0.85,
        "traditional-2x": 0.86,
        "transfer-real": 0.86,
        "double-real": 0.9,
    }.items():
        means[regime, None, None] = {"auc": auc}
    return means


def measured(means, noise: float = 0.0004, subsets: int = 5, seed: int = 0) -> claims.Measured:
    """A run with these means: every subset shifts all arms alike and adds a little of its own."""
    rng, rows = np.random.default_rng(seed), []
    for k in range(subsets):
        shift = rng.normal(0, 0.01)
        for arm, values in means.items():
            kind = "quality" if arm[0] == "quality" else "classification"
            row = {
                "kind": kind,
                "subset": k,
                "file": f"{kind}-{k}",
                "provenance": SCALE | {"subset": k, "seed": k},
                "status": "ok",
            }
            row |= {"generator": arm[1], "selection": arm[2]} | (
                {"extractor": "judge", "judge": "j"} if kind == "quality" else {"regime": arm[0], "arm": str(arm)}
            )
            for name, value in values.items():
                size = noise * (100 if name == "fid" else 1)
                row[name] = value + size * rng.normal() + (shift if name == "auc" else 0)
            rows.append(row)
    return claims.Measured(rows, "made up")


def test_a_world_in_which_the_claims_hold():
    source = measured(truth())
    verdicts = {n: rule(source)[0] for n, rule in enumerate(claims.RULES, 1)}
    assert verdicts == dict.fromkeys(range(1, 14), SUPPORTED)


def swap(arm, other, name):
    def change(means):
        means[arm][name], means[other][name] = means[other][name], means[arm][name]

    return change


def put(name, value, *arms):
    def change(means):
        for arm in arms:
            means[arm][name] = value

    return change


def every(kind, g):
    return [(kind, g, s) for s in paper.SELECTIONS]


AGAINST = {
    1: put("fid", 200.0, ("quality", "dit", "none")),
    2: put("recall", 0.3, ("quality", "histogan", "none")),
    3: put("fid", 60.0, ("quality", "dit", "none")),
    4: put("fid", 30.0, ("quality", "unet", "class")),
    5: put("auc", 0.84, ("transfer", "unet", "class")),
    6: put("auc", 0.95, *every("transfer", "histogan")),
    7: put("auc", 0.5, *every("synthetic", "dit")),
    8: put("auc", 0.95, ("transfer", "dit", "realism")),
    9: put("auc", 0.95, ("augmentation", "unet", "none")),
    10: lambda means: [means["synthetic", g, s].update(auc=0.5 + FID[g] / 500) for g, s in claims.SETS],
    11: put("auc", 0.95, ("augmentation", "dit", "none")),
    12: lambda means: [
        means["synthetic", g, s].update(auc=1.4 - means["transfer", g, s]["auc"]) for g, s in claims.SETS
    ],
    13: put("label_auc", 0.7, ("quality", "unet", "class")),
}


@pytest.mark.parametrize("number", AGAINST)
def test_a_world_in_which_a_claim_fails(number):
    means = truth()
    AGAINST[number](means)
    # ranks that are the same in all five subsets are no proof: with some noise they are not
    verdict, statements = claims.RULES[number - 1](measured(means, noise=0.004 if number == 12 else 0.0004))
    assert verdict == CONTRADICTED
    assert any(s.found.mean < 0 for s in statements)


def test_another_generator_that_helps_everywhere_contradicts_the_only():
    means = truth()
    put("auc", 0.95, *every("transfer", "dit"), *every("augmentation", "dit"))(means)
    assert claims.rule_5(measured(means))[0] == CONTRADICTED


@pytest.mark.parametrize("number", range(1, 14))
def test_noise_and_too_few_subsets_leave_a_claim_undecided(number):
    rule = claims.RULES[number - 1]
    assert rule(measured(truth(), noise=3.0))[0] == UNDECIDED
    assert rule(measured(truth(), subsets=1))[0] == UNDECIDED


@pytest.mark.parametrize("number", range(1, 14))
def test_an_arm_not_run_leaves_a_claim_undecided_and_says_why(number):
    means = truth()
    for arm in [a for a in means if a[1] == "histogan"] + ([("transfer", "unet", "realism")] if number == 3 else []):
        del means[arm]
    verdict, statements = claims.RULES[number - 1](measured(means))
    if number == 3:  # speaks of DiT and U-Net only
        assert verdict == SUPPORTED
    else:
        assert verdict == UNDECIDED and any(s.found is None and "not run" in s.missing for s in statements)


def test_verdicts_together():
    assert claims.joined([SUPPORTED, SUPPORTED]) == SUPPORTED
    assert claims.joined([SUPPORTED, UNDECIDED]) == UNDECIDED
    assert claims.joined([UNDECIDED, CONTRADICTED]) == CONTRADICTED
    assert [claims.negated(v) for v in (SUPPORTED, CONTRADICTED, UNDECIDED)] == [CONTRADICTED, SUPPORTED, UNDECIDED]


def test_many_statements_do_not_contradict_by_chance():
    """All arms equal in truth, 15 and 19 statements: a false contradiction in about one world in twenty."""
    means = {arm: {"auc": 0.85} for arm in all_arms()}
    false = [claims.RULES[n - 1](measured(means, seed=seed))[0] for seed in range(40) for n in (9, 11)]
    assert SUPPORTED not in false and false.count(CONTRADICTED) <= 8


def test_the_papers_own_tables():
    """Its differences of image quality are large; most of those in AUC are within its own spread."""
    verdicts = {n: rule(claims.Printed()) for n, rule in enumerate(claims.RULES, 1)}
    assert {n for n, (verdict, _) in verdicts.items() if verdict == SUPPORTED} == {1, 2}
    assert CONTRADICTED not in {verdict for verdict, _ in verdicts.values()}
    precision = next(s for s in verdicts[3][1] if "precision" in s.text).found
    assert precision.mean == pytest.approx(0.0147) and precision.p > 0.05, "45.17 ± 2.67 against 43.70 ± 1.78"
    lead = next(s for s in verdicts[11][1] if "Traditional" in s.text).found
    assert lead.mean == pytest.approx(0.0055) and lead.p < 0.05
    for number in (7, 10, 12, 13):
        open_ones = [s for s in verdicts[number][1] if not s.text.startswith("FID")]
        assert open_ones and all(s.found is None and "prints no number" in s.missing for s in open_ones)


def test_the_ledger_has_a_column_per_source_and_all_numbers(tmp_path):
    for name, subsets, size in (("small", 2, 500), ("large", 3, 400), ("single", 1, 2000)):
        rows = [r for a in measured(truth(), subsets=subsets).by_arm.values() for r in a]
        write_json(tmp_path / f"{name}.json", [r | {"provenance": r["provenance"] | {"n_real": size}} for r in rows])
    runs = published_runs(tmp_path)
    assert [run.name for run in runs] == ["large", "small", "single"], "one subset has no verdicts"
    assert runs[0].bootstrap is None
    rows = [r for a in measured(truth(), noise=3.0).by_arm.values() for r in a]
    evidence = claim_table.sources(rows, runs)
    table = claim_table.table(evidence)
    assert len(table.rows) == 13 and [s.name for s in evidence] == ["paper", "published: large", "this run"]
    assert (table.rows[0]["verdict 0"], table.rows[0]["verdict 1"], table.rows[0]["verdict 2"]) == (
        SUPPORTED,
        SUPPORTED,
        UNDECIDED,
    )
    assert "3 subsets of 400" in table.caption and "too narrow" in table.caption
    html = claim_table.details(evidence)
    assert html.count("<details>") == 13 and "the paper prints no number for it" in html and "n = 5" in html
    assert "published: large" in render(table)
    assert claim_table.counts(evidence[0]) == (
        "Paper: 2 supported, 0 contradicted, 11 undecided at this scale, 4 of them for want of numbers."
    )
    assert [s.name for s in claim_table.sources([], [])] == ["paper", "this run"]
    assert claim_table.table(claim_table.sources([], [])).rows[0]["verdict 1"] == UNDECIDED


def test_the_published_runs_of_the_book_can_be_read():
    runs = published_runs()
    assert runs and not runs[0].provenance["phantom"]
    assert len(claim_table.table(claim_table.sources(runs[0].rows, runs)).rows) == 13
    assert frame.extractors(runs[0].rows)
