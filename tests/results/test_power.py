"""Power: components against simulated truth, power against simulated tests, and the subsets that the paper's claims
need."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats as scipy_stats

from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.results import clusters, power

DESIGN = {"subset": 0.25, "seed": 0.3, "interaction": 0.4, "patch": 0.4}


def study(rng, subsets, seeds, n, subset, seed, interaction, patch):
    """Labels, and scores (K, R, N) of two equally good arms that share what makes a patch hard."""
    labels, hard = np.tile([0, 1], n // 2), rng.normal(size=n)

    def arm():
        gain = 1.2 + subset * rng.normal(size=(subsets, 1, 1)) + seed * rng.normal(size=(subsets, seeds, 1))
        own = interaction * rng.normal(size=(subsets, 1, n)) + patch * rng.normal(size=n)
        return gain * labels + hard + own + 0.3 * rng.normal(size=(subsets, seeds, n))

    return labels, arm(), arm()


def difference(labels, a, b):
    return float((clusters.auc_terms(labels, a)[0] - clusters.auc_terms(labels, b)[0]).mean())


def mean_components(found):
    """Components whose estimates are averaged, the negative ones too: they are unbiased together."""
    raw = {
        name: np.mean([f.negative.get(name, getattr(f, name)) for f in found])
        for name in ("subset", "patch_subset", "patch")
    }
    first, seed = found[0], np.mean([f.seed for f in found])
    return power.Components(0.0, seed=seed, n=first.n, subsets=first.subsets, seeds=first.seeds, **raw)


@pytest.mark.slow
def test_components_foretell_the_spread_of_other_designs():
    rng = np.random.default_rng(0)
    found = [power.variance_components(*study(rng, 4, 2, 160, **DESIGN)) for _ in range(150)]
    averaged = mean_components(found)
    for subsets, seeds, n in ((4, 2, 160), (8, 1, 160), (2, 3, 320)):
        means = [difference(*study(rng, subsets, seeds, n, **DESIGN)) for _ in range(400)]
        expected = power.variance_of_mean(averaged, subsets, seeds, n)
        assert np.var(means) == pytest.approx(expected, rel=0.25), (subsets, seeds, n)


@pytest.mark.parametrize("absent", ["subset", "seed", "interaction", "patch"])
def test_an_absent_component_is_near_zero_and_never_below(absent):
    rng = np.random.default_rng(1)
    with_it = [power.variance_components(*study(rng, 4, 3, 120, **DESIGN)) for _ in range(60)]
    without = [power.variance_components(*study(rng, 4, 3, 120, **{**DESIGN, absent: 0.0})) for _ in range(60)]
    name = {"interaction": "patch_subset"}.get(absent, absent)
    size = [np.mean([f.negative.get(name, getattr(f, name)) for f in some]) for some in (without, with_it)]
    assert size[0] < 0.6 * size[1], size  # what patches add to a seed stays in `seed`, and each network's noise stays
    for found in with_it + without:
        assert min(found.subset, found.seed, found.patch_subset, found.patch) >= 0
        assert all(value < 0 and getattr(found, n) == 0 for n, value in found.negative.items())
    if absent == "subset":
        assert any("subset" in f.negative for f in without)


def test_one_seed_and_one_subset():
    labels, a, b = study(np.random.default_rng(2), 3, 1, 60, **DESIGN)
    found = power.variance_components(labels, a, b)
    assert found.seed is None and found.mean == pytest.approx(difference(labels, a, b))
    spread = (clusters.auc_terms(labels, a)[0] - clusters.auc_terms(labels, b)[0]).var(ddof=1)
    if not found.negative:
        assert found.subset + found.patch_subset == pytest.approx(spread)
    with pytest.raises(StudyError, match="one seed"):
        power.variance_of_mean(found, 3, 2, 60)
    with pytest.raises(StudyError, match="one subset"):
        power.variance_components(labels, a[:1], b[:1])
    with pytest.raises(StudyError, match="subsets, seeds, patches"):
        power.variance_components(labels, a, b[:2])


def test_variance_of_mean_is_the_formula():
    c = power.Components(0.0, subset=4e-6, seed=9e-6, patch_subset=2e-6, patch=0.3, n=3000, subsets=3, seeds=3)
    expected = 4e-6 / 5 + (9e-6 / 2 + 2e-6) / 5 + 0.3 * (1 + 9 * 0.2) / 3000
    assert power.variance_of_mean(c, 5, 2, 3000, m=10, rho=0.2) == pytest.approx(expected)
    fixed = power.variance_of_mean(c, 5, 2, 3000, new_patches=False)
    assert fixed == pytest.approx((4e-6 + 4.5e-6 + 2e-6) / 5)
    assert power.variance_of_mean(c, 5, 2, 6000, new_patches=False) == pytest.approx((4e-6 + 4.5e-6 + 1e-6) / 5)
    assert power.freedom(c, 5, 2, 3000, new_patches=False) == pytest.approx(4)
    assert 4 < power.freedom(c, 5, 2, 3000) < 3003


def test_slides_give_the_design_effect_of_the_patch_part():
    rng, effects, patch = np.random.default_rng(3), [], []
    for _ in range(20):
        made = clusters.simulate(rng, slides=30, patches=10)
        arms = [s + 0.2 * rng.normal(size=(3, 2, len(s))) for s in (made.scores, made.reference)]
        found = power.variance_components(made.labels, *arms, groups=made.groups)
        effects.append(1 + (found.m - 1) * found.rho)
        patch.append(found.patch)
        alone = clusters.design(made.labels, arms[0].mean((0, 1)), groups=made.groups, reference=arms[1].mean((0, 1)))
        assert 1 + (found.m - 1) * found.rho == pytest.approx(alone.effect, rel=0.15)
    assert np.mean(effects) > 1.5 and min(patch) > 0


@pytest.mark.parametrize("effect, n, level", [(1.0, 5, 0.05), (0.6, 24, 0.05), (2.0, 4, 0.01)])
def test_power_is_that_of_simulated_tests(effect, n, level):
    values = np.random.default_rng(4).normal(effect, 1, (20_000, n))
    found = scipy_stats.ttest_1samp(values, 0, axis=1)
    share = np.mean((found.pvalue < level) & (found.statistic > 0))
    assert power.power_of(effect, 1 / math.sqrt(n), n - 1, level) == pytest.approx(share, abs=0.012)


def test_power_at_its_ends():
    assert power.power_of(0, 1, 4) == pytest.approx(0.025) and power.power_of(1, 0, 4) == 1
    assert power.power_of(50, 1, 3) == pytest.approx(1) and power.power_of(500, 1, 3) == 1
    assert power.power_of(2, 1, 1e6) == pytest.approx(scipy_stats.norm.sf(scipy_stats.norm.isf(0.025) - 2), rel=1e-5)


def test_minimum_detectable_effect_is_found_with_its_power():
    for tests, rejected in ((1, 0), (18, 0), (18, 17)):
        found = power.minimum_detectable_effect(0.3, 4, tests=tests, rejected=rejected)
        assert power.power_of(found, 0.3, 4, 0.05 / (tests - rejected)) == pytest.approx(0.8)
    assert power.minimum_detectable_effect(0.3, 4, tests=18, rejected=17) == power.minimum_detectable_effect(0.3, 4)
    assert power.minimum_detectable_effect(0.0, 4) == 0
    with pytest.raises(StudyError, match="rejected"):
        power.minimum_detectable_effect(0.3, 4, tests=2, rejected=2)


def test_subsets_to_see_the_papers_best_gain():
    spreads = (0.30, 0.46, 0.70, 0.90)
    assert [power.subsets_needed(0.55, sd) for sd in spreads] == [5, 8, 15, 24]
    assert [power.subsets_needed(0.55, sd, tests=18) for sd in spreads] == [9, 15, 29, 44]
    least = [power.minimum_detectable_effect(0.46 / math.sqrt(k), k - 1) for k in (7, 8)]
    assert least[1] <= 0.55 < least[0], "7 subsets are too few, 8 are enough"
    assert power.subsets_needed(0.0, 1.0) is None and power.subsets_needed(1e-6, 1.0) is None
    assert power.subsets_needed(1.0, 0.0) == 2


TABLES = {("quality", r.generator, r.selection): r for r in paper.TABLE_1}
TABLES |= {(r.regime, r.generator, r.selection): r for r in paper.TABLE_2}


def contrast(metric, plus, minus=(), offset=0.0):
    """(weight, mean, sd) of the mean of some printed rows minus that of others, plus an offset."""
    found = [(1.0, offset, 0.0)] if offset else []
    for arms, sign in ((plus, 1), (minus, -1)):
        found += [
            (sign / len(arms), getattr(TABLES[arm], metric).mean, getattr(TABLES[arm], metric).sd) for arm in arms
        ]
    return found


def hardest(claim):
    """The statement of a claim of the paper that needs the most subsets at the printed numbers."""
    if claim in (1, 3):  # FID, precision, recall of the better generator
        pairs = [("unet", "histogan"), ("dit", "histogan")] if claim == 1 else [("dit", "unet")]
        rows = [(("quality", a, "none"), ("quality", b, "none")) for a, b in pairs]
        return [contrast("fid", [b], [a]) for a, b in rows] + [
            contrast(m, [a], [b]) for a, b in rows for m in ("precision", "recall")
        ]
    if claim == 4:
        rows = [(("quality", g, "none"), ("quality", g, s)) for g in paper.GENERATORS for s in ("realism", "class")]
        return [contrast("fid", [b], [a]) for a, b in rows] + [contrast("precision", [a], [b]) for a, b in rows]
    if claim == 6:
        use = {
            r: {g: [(r, g, s) for s in paper.SELECTIONS] for g in paper.GENERATORS}
            for r in ("transfer", "augmentation")
        }
        better = {
            "unet": ("transfer", "augmentation"),
            "dit": ("transfer", "augmentation"),
            "histogan": ("augmentation", "transfer"),
        }
        return [contrast("auc", use[a][g], use[b][g]) for g, (a, b) in better.items()]
    if claim == 8:
        gains = {
            g: [[(r, g, s) for r in ("augmentation", "transfer")] for s in ("realism", "none")]
            for g in paper.GENERATORS
        }
        return [contrast("auc", *gains[g]) for g in ("histogan", "unet")] + [
            contrast("auc", gains["dit"][1], gains["dit"][0], 0.1)
        ]
    best = {
        "histogan": ("augmentation", "histogan", "realism"),
        "unet": ("transfer", "unet", "realism"),
        "dit": ("transfer", "dit", "none"),
    }
    mixed = [arm for arm in TABLES if arm[0] in ("augmentation", "transfer")]
    if claim == 9:
        return [contrast("auc", [best[a[1]]], [a]) for a in mixed if a != best[a[1]]]
    return [contrast("auc", [best["unet"]], [a]) for a in TABLES if a[0] != "quality" and a != best["unet"]]


@pytest.mark.parametrize(
    "claim, by_welch, by_n_minus_1",
    [(1, 3, 3), (3, 39, 40), (4, 379, 380), (6, 793, 794), (8, 31, 33), (9, 267, 268), (11, 267, 268)],
)
def test_subsets_that_the_papers_claims_need(claim, by_welch, by_n_minus_1):
    found = [power.decidable(weighted, correlation=0.0) for weighted in hardest(claim)]
    assert max(f.unpaired for f in found) == by_welch
    assert max(f.paired for f in found) == by_n_minus_1, (
        "uncorrelated pairs: the same variance, n - 1 degrees of freedom"
    )
    correlated = [power.decidable(weighted, correlation=0.8) for weighted in hardest(claim)]
    assert max(f.paired for f in correlated) <= max(f.unpaired for f in found)


def test_an_arm_of_table_2():
    rows = {(row.regime, row.generator, row.selection): row.auc for row in paper.TABLE_2}
    ours, theirs = rows["transfer", "unet", "realism"], rows["traditional", None, None]
    found = power.decidable([(1, ours.mean, ours.sd), (-1, theirs.mean, theirs.sd)])
    assert (found.effect, found.sd) == pytest.approx((0.55, math.sqrt((0.38**2 + 0.26**2 - 0.38 * 0.26))))
    assert found.unpaired == 7 and found.paired == power.subsets_needed(found.effect, found.sd)
    assert power.decidable([(1, 1.0, 0.1), (-1, 2.0, 0.1)])[2:] == (None, None), "the wrong sign"
