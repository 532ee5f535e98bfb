"""Every rule for a claim, on results made up to be for the claim, against it, and neither."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up import measured as made_up_results

from pcamlib.core import paper
from pcamlib.results import claims
from pcamlib.results.arms import ARMS, IMAGE_SETS, MIXED, Arm
from pcamlib.results.claims import CONTRADICTED, SUPPORTED, UNDECIDED

G = paper.GENERATORS
FID = {"histogan": 100.0, "unet": 50.0, "dit": 40.0}
NEAR = {"histogan": 0.1, "unet": 0.4, "dit": 0.5}
AUC = {
    "histogan": {"augmentation": 0.84, "transfer": 0.83},
    "unet": {"augmentation": 0.88, "transfer": 0.89},
    "dit": {"augmentation": 0.82, "transfer": 0.87},
}
ALONE = {"histogan": 0.6, "unet": 0.7, "dit": 0.75}


def truth() -> dict[Arm, dict[str, float]]:
    """Means in which all thirteen claims hold: traditional 0.85, U-Net above it, the others not always."""
    means: dict[Arm, dict[str, float]] = {}
    gain = {"none": 0.0, "realism": 0.01, "class": 0.005}
    for g, s in IMAGE_SETS:
        worse = {"none": 0, "realism": 5, "class": 6}[s]
        means[Arm("quality", g, s)] = {
            "fid": FID[g] + worse,
            "precision": NEAR[g] - worse / 200,
            "recall": 0.0 if g == "histogan" else NEAR[g] / 2,
            "label_auc": 0.8 + 0.1 * (s == "class"),
        }
        for regime in MIXED:
            sign = -1 if g == "dit" else 1
            means[Arm(regime, g, s)] = {"auc": AUC[g][regime] + sign * gain[s]}
        means[Arm("synthetic", g, s)] = {"auc": ALONE[g] - worse / 1000}
    for regime, auc in {
        "baseline": 0.80,
        "traditional": 0.85,
        "traditional-2x": 0.86,
        "transfer-real": 0.86,
        "double-real": 0.9,
    }.items():
        means[Arm(regime)] = {"auc": auc}
    return means


def measured(means, noise: float = 0.0004, subsets: int = 5, seed: int = 0) -> claims.Measured:
    """A run with these means: every subset shifts all arms alike and adds a little of its own."""
    rng = np.random.default_rng(seed)
    shift, values = rng.normal(0, 0.01, subsets), {}
    for arm, by_metric in means.items():
        for metric, value in by_metric.items():
            drawn = value + noise * (100 if metric == "fid" else 1) * rng.normal(size=subsets)
            values.setdefault(metric, {})[arm] = (drawn + shift * (metric == "auc")).tolist()
    return claims.Measured(pd.concat([made_up_results(arms, metric) for metric, arms in values.items()]), "made up")


def test_a_world_in_which_the_claims_hold():
    source = measured(truth(), seed=2)  # rank correlations that are equal in all subsets would be no proof
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
    return [Arm(kind, g, s) for s in paper.SELECTIONS]


AGAINST = {
    1: put("fid", 200.0, Arm("quality", "dit", "none")),
    2: put("recall", 0.3, Arm("quality", "histogan", "none")),
    3: put("fid", 60.0, Arm("quality", "dit", "none")),
    4: put("fid", 30.0, Arm("quality", "unet", "class")),
    5: put("auc", 0.84, Arm("transfer", "unet", "class")),
    6: put("auc", 0.95, *every("transfer", "histogan")),
    7: put("auc", 0.5, *every("synthetic", "dit")),
    8: put("auc", 0.95, Arm("transfer", "dit", "realism")),
    9: put("auc", 0.95, Arm("augmentation", "unet", "none")),
    10: lambda means: [means[Arm("synthetic", g, s)].update(auc=0.5 + FID[g] / 500) for g, s in IMAGE_SETS],
    11: put("auc", 0.95, Arm("augmentation", "dit", "none")),
    12: lambda means: [
        means[Arm("synthetic", g, s)].update(auc=1.4 - means[Arm("transfer", g, s)]["auc"]) for g, s in IMAGE_SETS
    ],
    13: put("label_auc", 0.7, Arm("quality", "unet", "class")),
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
    for arm in [a for a in means if a.generator == "histogan"] + (
        [Arm("transfer", "unet", "realism")] if number == 3 else []
    ):
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
    means = {arm: {"auc": 0.85} for arm in ARMS}
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
