"""Every rule for a claim, on results made up to be for the claim, against it, and neither."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from made_up import measured as made_up_results

from pcamlib.core import paper
from pcamlib.results import claims
from pcamlib.results.arms import ARMS, IMAGE_SETS, MIXED, Arm
from pcamlib.results.claims import CONTRADICTED, NO_VERDICT, SUPPORTED, UNDECIDED, UNTESTABLE, Statement, Verdict
from pcamlib.results.evidence import Measured, Planned, Printed
from pcamlib.results.inference import over_subsets

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
            "recall": 0.0 if g == "histogan" else NEAR[g] / 2 - worse / 200,
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


def measured(means, noise: float = 0.0004, subsets: int = 5, seed: int = 0) -> Measured:
    """A run with these means: every subset shifts all arms alike and adds a little of its own."""
    rng = np.random.default_rng(seed)
    shift, values = rng.normal(0, 0.01, subsets), {}
    for arm, by_metric in means.items():
        for metric, value in by_metric.items():
            drawn = value + noise * (100 if metric == "fid" else 1) * rng.normal(size=subsets)
            values.setdefault(metric, {})[arm] = (drawn + shift * (metric == "auc")).tolist()
    made = Measured(pd.concat([made_up_results(arms, metric) for metric, arms in values.items()]), "made up")
    made.histogan = "published"
    return made


def test_a_world_in_which_the_claims_hold():
    source = measured(truth(), seed=2)  # rank correlations that are equal in all subsets would be no proof
    verdicts = {n: rule(source).word for n, rule in enumerate(claims.RULES, 1)}
    always_first = {9, 11}  # the same rank in all of five subsets: the exact p is 0.06
    assert {n for n, word in verdicts.items() if word == SUPPORTED} == set(range(1, 14)) - always_first
    more = measured(truth(), subsets=6, seed=2)
    assert {claims.RULES[n - 1](more).word for n in always_first} == {SUPPORTED}, "1 / 32"


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
    9: put("auc", 0.80, Arm("transfer", "unet", "realism")),
    10: lambda means: [means[Arm("synthetic", g, s)].update(auc=0.5 + FID[g] / 500) for g, s in IMAGE_SETS],
    11: put("auc", 0.84, Arm("transfer", "unet", "realism")),
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
    noise, subsets = 0.004 if number == 12 else 0.0004, 8 if number == 9 else 5
    found = claims.RULES[number - 1](measured(means, noise=noise, subsets=subsets))
    assert found.word == found.text == CONTRADICTED
    assert any(s.found.mean < 0 for s in found.statements)


def test_another_generator_that_helps_everywhere_contradicts_the_only():
    means = truth()
    put("auc", 0.95, *every("transfer", "dit"), *every("augmentation", "dit"))(means)
    assert claims.rule_5(measured(means)).word == CONTRADICTED


def test_one_counterexample_is_enough_for_not_all():
    """Claim 5 does not ask that another generator be shown to harm: one arm that is not ahead will do."""
    means = truth()
    for g in ("histogan", "dit"):
        put("auc", 0.87, *every("transfer", g), *every("augmentation", g))(means)
        put("auc", 0.8499, Arm("augmentation", g, "none"))(means)
    assert claims.rule_5(measured(means, noise=0.0)).word == UNDECIDED, "equal in all subsets, so nothing is sure"
    assert claims.rule_5(measured(means, noise=0.002)).word == SUPPORTED
    lines = [Statement("a", over_subsets([0.01, 0.011, 0.012])), Statement("b", over_subsets([0.01, -0.001, 0.012]))]
    assert claims.not_all_positive(lines).word == UNDECIDED and claims.not_all_positive(lines[:1]).word == CONTRADICTED
    lines.append(Statement("c", over_subsets([0.01, -0.02, 0.0])))
    assert claims.not_all_positive(lines).word == SUPPORTED


def test_claim_6_is_an_interaction():
    """HistoGAN gains from transfer too, but less than the diffusion models do."""
    means = truth()
    put("auc", 0.841, *every("augmentation", "histogan"))(means)
    put("auc", 0.845, *every("transfer", "histogan"))(means)
    found = claims.rule_6(measured(means))
    assert found.word == SUPPORTED and len(found.statements) == 2
    assert found.statements[0].found.mean == pytest.approx(0.01 - 0.004, abs=1e-3)


def test_shares_by_hand():
    """Ahead of two rivals of three, one of them by less than a tenth of a point: 1.5 of 3, less two thirds."""
    best, *others = [Arm("transfer", "unet", s) for s in paper.SELECTIONS] + [Arm("augmentation", "unet", "none")]
    values = {best: [0.9, 0.9], others[0]: [0.89, 0.89], others[1]: [0.8995, 0.91], others[2]: [0.95, 0.89]}
    source = Measured(made_up_results(values), "made up")
    found = source.share(best, others, offset=-claims.TOP)
    assert found.mean == pytest.approx((1.5 / 3 + 2 / 3) / 2 - 2 / 3) and found.n == 2


@pytest.mark.parametrize("number", range(1, 14))
def test_noise_leaves_a_claim_undecided_and_one_subset_cannot_test_it(number):
    rule = claims.RULES[number - 1]
    noisy = rule(measured(truth(), noise=3.0)).word
    assert noisy == UNDECIDED
    alone = rule(measured(truth(), subsets=1))
    assert alone.word == UNTESTABLE and "two are needed" in alone.text or number in (10, 12)


@pytest.mark.parametrize("number", range(1, 14))
def test_an_arm_not_run_makes_a_claim_untestable_and_says_why(number):
    means = truth()
    for arm in [a for a in means if a.generator == "histogan"]:
        del means[arm]
    found = claims.RULES[number - 1](measured(means, seed=2, subsets=6))
    if number == 3:  # speaks of DiT and U-Net only
        assert found.word == SUPPORTED
    else:
        assert found.text.startswith("not testable here because") and "HistoGAN was not run" in found.because
    if number == 9:
        del means[Arm("transfer", "unet", "class")]
        assert "transfer-unet-class was not run" in claims.rule_9(measured(means)).because


def test_verdicts_together():
    yes, no, open_, none = (
        Verdict(w, [], "x" * (w == UNTESTABLE)) for w in (SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE)
    )
    assert claims.joined([yes, yes]).word == SUPPORTED and claims.joined([yes, open_]).word == UNDECIDED
    assert claims.joined([open_, none, no]).word == CONTRADICTED
    assert claims.joined([open_, none]).text == "not testable here because x"


def test_only_the_published_histogan_can_collapse_as_published():
    source = measured(truth())
    assert claims.rule_2(source).word == SUPPORTED
    source.histogan = "stabilised"
    assert claims.rule_2(source).text.startswith("not testable here because its HistoGAN is the stabilised variant")
    assert Measured(made_up_results({Arm("baseline"): [0.5]}), "made-up settings").histogan == "unknown"


def test_a_device_below_a_trivial_baseline_gives_no_verdict_on_classifiers():
    means = truth()
    source = measured(means)
    assert claims.verdict(claims.rule_8, source).text == "no verdict: No trivial baseline was run"
    assert claims.verdict(claims.rule_1, source).word == SUPPORTED, "of images, by a judge"
    means[Arm("colour")] = {"auc": 0.86}
    assert claims.verdict(claims.rule_8, measured(means)).text.startswith(
        "no verdict: Traditional augmentation reaches AUC 8"
    )
    means[Arm("colour")] = {"auc": 0.80}
    assert claims.verdict(claims.rule_8, measured(means)).word == SUPPORTED
    assert claims.verdict(claims.rule_8, Printed()).word == UNDECIDED and NO_VERDICT == "no verdict"


def test_what_the_papers_effects_need():
    """Claim 1 needs 3 subsets, 3 about 40 of unpaired arms; 5 is planned by the U-Net's arms only."""
    plans = [claims.needed(rule) for rule in claims.RULES]
    assert all(isinstance(plan, Planned) for plan in plans)
    assert max(d.unpaired for d in plans[0].found) == 3 and max(d.unpaired for d in plans[2].found) == 39
    assert len(plans[4].found) == 12 and (len(plans[6].found), plans[6].unknown) == (2, 2)
    assert plans[10].found[2].unpaired is None and 10 < plans[10].found[2].paired < 20
    assert not plans[12].found and plans[12].unknown == 3


@pytest.mark.slow
def test_many_statements_do_not_contradict_by_chance():
    """All arms equal in truth, twelve and three statements: a false contradiction in about one world in twenty."""
    means = {arm: {"auc": 0.85} for arm in ARMS[:29]}
    false = [claims.RULES[n - 1](measured(means, seed=seed)).word for seed in range(40) for n in (6, 8)]
    assert SUPPORTED not in false and false.count(CONTRADICTED) <= 8
    ranks = [claims.rule_11(measured(means, seed=seed, subsets=20)).word for seed in range(20)]
    assert SUPPORTED not in ranks, "an arm like the others is not the best"


def test_the_papers_own_tables():
    """Its differences of image quality are large; most of those in AUC are within its own spread."""
    verdicts = {n: rule(Printed()) for n, rule in enumerate(claims.RULES, 1)}
    assert {n for n, found in verdicts.items() if found.word == SUPPORTED} == {1, 2}
    assert CONTRADICTED not in {found.word for found in verdicts.values()}
    zero = verdicts[2].statements[0].found  # 1 % minus 0.00 +- 0.00
    assert zero.mean == pytest.approx(0.01) and 0 < zero.p < 1e-6
    precision = next(s for s in verdicts[3].statements if "precision" in s.text).found
    assert precision.mean == pytest.approx(0.0147) and precision.p > 0.05, "45.17 ± 2.67 against 43.70 ± 1.78"
    recall = [s for s in verdicts[4].statements if "recall" in s.text]
    assert len(recall) == 6 and recall[1].found.mean == pytest.approx(0.0289), "U-Net: 6.31 to 3.42"
    lead = next(s for s in verdicts[11].statements if "Traditional" in s.text).found
    assert lead.mean == pytest.approx(0.0055) and lead.p < 0.05
    for number, what in {
        7: "number for it",
        9: "values by subset",
        10: "values by subset",
        13: "number for it",
    }.items():
        assert verdicts[number].text == f"not testable here because the paper prints no {what}"


def test_another_level_decides_as_the_rules_do(monkeypatch):
    """`at_level` gives what the rule itself gives with another ALPHA, barred rules and counterexamples included."""
    sources = [measured(truth(), noise=noise, seed=seed) for noise in (0.0004, 0.004) for seed in range(3)]
    sources[0].histogan = "stabilised"
    against = truth()
    AGAINST[5](against)
    sources.append(measured(against, noise=0.004))
    words = set()
    for source in sources:
        found = [rule(source) for rule in claims.RULES]
        for alpha in (0.5, 0.2, 0.01):
            again = [claims.at_level(one, alpha) for one in found]
            monkeypatch.setattr(claims.judged, "__defaults__", (alpha,))
            monkeypatch.setattr(claims.not_all_positive, "__defaults__", (alpha,))
            expected = [rule(source) for rule in claims.RULES]
            monkeypatch.undo()
            assert [(v.word, v.because) for v in again] == [(v.word, v.because) for v in expected]
            words.update(one.word for one in again)
    assert words == {SUPPORTED, CONTRADICTED, UNDECIDED, UNTESTABLE}


def test_margin_and_lead_are_choices_of_the_source():
    means = truth()
    source = measured(means)
    strict, lax = measured(means), measured(means)
    strict.lead, lax.margin = 0.02, 0.02
    plain, ahead = (claims.rule_5(s).statements for s in (source, strict))
    assert all(b.found.mean == pytest.approx(a.found.mean - 0.02) for a, b in zip(plain, ahead, strict=True))
    assert claims.rule_1(strict) == claims.rule_1(source), "a lead is of AUC"
    assert claims.rule_8(lax).statements[2].found.mean == pytest.approx(
        claims.rule_8(source).statements[2].found.mean + 0.02 - 0.001
    )
    assert claims.rule_8(strict).statements[2].found == claims.rule_8(source).statements[2].found, "absence has no lead"
    assert claims.rule_9(lax).statements[0].found.mean < claims.rule_9(source).statements[0].found.mean


def test_what_is_asked_can_be_answered_again():
    """The recorded question of every statement gives its estimate."""
    source = measured(truth())

    def arms(weights):
        return {Arm(*name.split("-")): w for name, w in weights.items()}

    for rule in claims.RULES:
        for line in rule(source).statements:
            asked = dict(line.asked)
            kind = asked.pop("kind")
            if kind == "contrast":
                offset = source.margin if asked["absence"] else asked["offset"]
                again = source.contrast(arms(asked["weights"]), asked["metric"], offset)
            elif kind == "share":
                (best,), rivals = arms({asked["arm"]: 1}), list(arms(dict.fromkeys(asked["rivals"], 1)))
                again = source.share(best, rivals, offset=asked["offset"])
            else:
                pairs = [
                    (
                        p["weight"],
                        [arms(w) for w in p["first"]],
                        p["first_metric"],
                        [arms(w) for w in p["second"]],
                        p["second_metric"],
                    )
                    for p in asked["pairs"]
                ]
                again = source.ranks(*pairs, offset=asked["offset"])
            assert again == line.found
