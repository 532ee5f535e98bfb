"""The page that recomputes, in headless Chromium: the same numbers as Python, fast, by keyboard, and on paper.

The arithmetic runs in an empty page. The rest runs in a book of four pages, rendered with the extensions and styles of
the whole one. Skipped where there is no Chromium; the accessibility check also where axe-core is not installed.
"""

from __future__ import annotations

import math
import shutil

import numpy as np
import pandas as pd
import pytest
from browser import AUDIT, AXE, CHROMIUM, NARROW, WIDER, opened, playwright
from made_up import measured
from scipy import stats

from pcamlib.core.files import project_root
from pcamlib.report import recompute
from pcamlib.results import claims, frame
from pcamlib.results.arms import IMAGE_SETS, MIXED, Arm
from pcamlib.results.evidence import MARGIN, Measured
from pcamlib.results.published import Published, published_folder, published_runs

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium: apt-get install chromium")
SCRIPT = project_root() / "book" / "_static" / "recompute.js"
CLOSE = {"rel": 1e-6, "abs": 1e-6}


def mulberry32(seed: int, count: int) -> np.ndarray:
    """The first `count` numbers of the generator, uint32 (count,): state i is seed + i times the constant."""
    with np.errstate(over="ignore"):
        state = np.uint32(seed) + np.arange(1, count + 1, dtype=np.uint32) * np.uint32(0x6D2B79F5)
        t = (state ^ (state >> np.uint32(15))) * (state | np.uint32(1))
        t ^= t + (t ^ (t >> np.uint32(7))) * (t | np.uint32(61))
    return t ^ (t >> np.uint32(14))


@pytest.fixture(scope="module")
def chromium():
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def run() -> Published:
    return published_runs()[0]


@pytest.fixture(scope="module")
def scores(run):
    """Test scores as they lie in the files: by (device, subset), by arm and seed."""
    found = {}
    for path in sorted((published_folder() / "scores" / run.name).glob("*.npz")):
        subset, probe = path.stem.removeprefix("subset-").partition("-probe")[:2]
        with np.load(path) as file:
            found["probe" if probe else "classification", int(subset)] = dict(file)
    return found


@pytest.fixture(scope="module")
def exact(run, scores) -> pd.DataFrame:
    """The published results with AUCs from the scores in double precision: those in the file are rounded to single."""
    results = run.results.copy()
    for i in results.index[(results["metric"] == "auc") & (results["status"] == "ok")]:
        line = results.loc[i]
        file = scores.get((line["kind"], line["subset"]), {})
        if (arm := frame.arm_of(line).id) in file:
            value = auc(file["labels"], file[arm])
            assert value == pytest.approx(line["value"], abs=1e-6), arm
            results.loc[i, "value"] = value
    return results


@pytest.fixture(scope="module")
def arithmetic(chromium):
    """arithmetic(content): an empty page whose `run` computes with it."""
    with opened(chromium) as page:

        def load(content):
            page.goto("about:blank")
            page.add_script_tag(content=SCRIPT.read_text())
            page.evaluate("(data) => { window.run = new recompute.Run(data); }", content)
            return page

        yield load
        assert not page.complaints


def auc(labels: np.ndarray, values: np.ndarray) -> float:
    positive = labels == 1
    ranks = stats.rankdata(values.astype(np.float64))[positive]
    p, q = positive.sum(), (~positive).sum()
    return float((ranks.sum() - p * (p + 1) / 2) / (p * q))


def measures(labels, values, threshold):
    """(AUC, sensitivity, specificity)."""
    called = values.astype(np.float64) >= threshold
    return auc(labels, values), called[labels == 1].mean(), (~called[labels == 0]).mean()


def test_the_generator_of_draws_is_the_same_in_both_languages(chromium):
    with opened(chromium) as page:
        page.add_script_tag(content=SCRIPT.read_text())
        for seed in (0, 1, 4294967295):
            ask = "(seed) => { const next = recompute.mulberry32(seed); return Array.from({length: 2000}, next); }"
            np.testing.assert_array_equal(page.evaluate(ask, seed), mulberry32(seed, 2000))
    assert abs(mulberry32(3, 100_000).mean() / 2**32 - 0.5) < 0.005


def test_students_t_is_scipys(chromium):
    with opened(chromium) as page:
        page.add_script_tag(content=SCRIPT.read_text())
        for df in (1, 2, 3, 7, 17, 2999):
            for t in (1e-4, 0.3, 1, 2.5, 12.7, 300):
                found = page.evaluate("([t, df]) => recompute.tValue(t, df)", [t, df])
                assert found == pytest.approx(2 * stats.t.sf(t, df), rel=1e-8, abs=1e-14)
            for p in (0.5, 0.05, 0.001):
                found = page.evaluate("([p, df]) => recompute.tQuantile(p, df)", [p, df])
                assert found == pytest.approx(stats.t.isf(p / 2, df), rel=1e-8)


def drawn(run_scores, labels, groups, asked):
    """The three measures of one or two arms, and their difference, in every draw: (rows, draws, 3)."""
    units = len(labels) if groups is None else int(groups.max()) + 1
    numbers = mulberry32(asked["seed"], asked["draws"] * units).astype(np.uint64)
    chosen = ((numbers * np.uint64(units)) >> np.uint64(32)).astype(int).reshape(asked["draws"], units)
    found = []
    for units_drawn in chosen:
        rows = units_drawn if groups is None else np.concatenate([np.flatnonzero(groups == g) for g in units_drawn])
        found.append([mean_measures(run_scores, labels, arm, asked, rows) for arm in asked["arms"]])
    rows = np.swapaxes(np.array(found), 0, 1)
    return np.concatenate([rows, rows[:1] - rows[1:]]) if len(rows) == 2 else rows


def mean_measures(run_scores, labels, arm, asked, rows):
    """Means over seeds, then over subsets."""
    by_subset = []
    for subset in asked["subsets"]:
        file = run_scores[asked["device"], subset]
        seeds = [key for key in file if key == arm or key.startswith(f"{arm}-seed")]
        assert seeds
        by_subset.append(np.mean([measures(labels[rows], file[s][rows], asked["threshold"]) for s in seeds], axis=0))
    return np.mean(by_subset, axis=0)


@pytest.mark.parametrize("case", range(8))
def test_bootstrap_intervals_are_those_of_the_same_draws_in_python(run, scores, arithmetic, case):
    rng = np.random.default_rng(case)
    content = recompute.content(run, published_folder())
    labels = next(iter(scores.values()))["labels"]
    groups = None
    if case % 2:
        groups = rng.permutation(np.arange(len(labels)) % 60)
        content["groups"] = groups.tolist()
    device = str(rng.choice(sorted({name[0] for name in content["curves"]})))
    there = sorted({name[1] for name in content["curves"] if name[0] == device})
    arms = sorted({name[2] for name in content["curves"] if name[0] == device})
    asked = {
        "device": device,
        "subsets": sorted(int(k) for k in rng.choice(there, rng.integers(1, min(len(there), 3) + 1), replace=False)),
        "arms": [str(arm) for arm in rng.choice(arms, 1 + (case > 0), replace=False)],
        "threshold": float(rng.choice(recompute.THRESHOLDS)),
        "unit": "slide" if case % 2 else "patch",
        "level": float(rng.choice([0.5, 0.8, 0.95, 0.99])),
        "draws": 40,
        "seed": int(rng.integers(2**32)),
    }
    page = arithmetic(content)
    found = page.evaluate("(asked) => run.compare(asked)", asked)
    assert found["used"] == asked["subsets"] and len(found["rows"]) == (3 if case else 1)
    values = drawn(scores, labels, groups, asked)
    every = np.arange(len(labels))
    whole = np.array([mean_measures(scores, labels, arm, asked, every) for arm in asked["arms"]])
    whole = np.concatenate([whole, whole[:1] - whole[1:]]) if case else whole
    for row, in_draws, mean in zip(found["rows"], values, whole, strict=True):
        for name, draws, value in zip(("auc", "sensitivity", "specificity"), in_draws.T, mean, strict=True):
            ends = np.quantile(draws, ((1 - asked["level"]) / 2, (1 + asked["level"]) / 2))
            assert [row[name]["mean"], row[name]["low"], row[name]["high"]] == pytest.approx([value, *ends], **CLOSE)


def test_intervals_over_subsets_are_those_of_inference(run, exact, arithmetic):
    content = recompute.content(run, published_folder())
    page = arithmetic(content)
    asked = {
        "device": content["start"],
        "subsets": [int(k) for k in sorted(exact["subset"].unique())],
        "threshold": 0.5,
    }
    asked |= {"arms": ["transfer-unet-none", "traditional"], "unit": "subset", "level": 0.95}
    found = page.evaluate("(asked) => run.compare(asked).rows[2]", asked)
    device = frame.by_device(exact, content["start"])
    for metric in ("auc", "sensitivity", "specificity"):
        values = frame.differences(device, Arm("traditional"), metric)["transfer-unet-none"]
        expected = claims_estimate(values.tolist())
        assert [found[metric][key] for key in ("mean", "low", "high", "p")] == pytest.approx(expected, **CLOSE)


def claims_estimate(values):
    mean, error = np.mean(values), np.std(values, ddof=1) / math.sqrt(len(values))
    half = stats.t.ppf(0.975, len(values) - 1) * error
    return [mean, mean - half, mean + half, 2 * stats.t.sf(abs(mean / error), len(values) - 1)]


def in_python(results, device, choice):
    """The verdicts and estimates of a choice by the rules themselves."""
    lines = frame.by_device(results, device)
    lines = lines[lines["subset"].isin(choice["subsets"])]
    source = Measured(lines, "x", margin=choice["margin"], lead=choice["lead"])
    words, estimates = [], []
    for rule in claims.RULES:
        found = claims.at_level(rule(source), 1 - choice["level"])
        barred = choice["ruled"] and rule in claims.OF_CLASSIFIERS and not source.trust.measures
        words.append(claims.NO_VERDICT if barred else found.word)
        estimates.append([s.found for s in found.statements])
    return words, estimates


def same_verdicts(page, results, device, choice) -> list[str]:
    """The words of the page, after a comparison of every word and every number with Python's."""
    found = page.evaluate("(choice) => run.verdicts(choice)", {"device": device} | choice)
    words, estimates = in_python(results, device, choice)
    assert [claim["word"] for claim in found] == words, choice
    for number, (claim, expected) in enumerate(zip(found, estimates, strict=True), 1):
        for line, estimate in zip(claim["statements"], expected, strict=True):
            assert (line["found"] is None) == (estimate is None), (number, line["text"])
            if estimate is None:
                continue
            assert line["found"]["n"] == estimate.n
            # a quotient of differences: rounding grows where values of subsets nearly agree
            keys = ("mean", "p") if choice["level"] != 0.95 else ("mean", "low", "high", "p")
            for key in keys:
                assert line["found"][key] == pytest.approx(getattr(estimate, key), **CLOSE), (number, line["text"], key)
    return words


def choices(rng, subsets):
    count = rng.integers(1, len(subsets) + 1)
    return {
        "subsets": sorted(int(k) for k in rng.choice(subsets, count, replace=False)),
        "level": float(rng.choice([0.5, 0.75, 0.9, 0.95, 0.95, 0.99])),
        "margin": float(rng.choice([0.0, 0.0005, MARGIN, 0.01])) + 1e-5,  # not a difference of two AUCs by chance
        "lead": float(rng.choice([-0.02, 0.0, 0.0, 0.015])),
        "ruled": bool(rng.random() < 0.4),
    }


def test_the_studys_own_choices_give_the_studys_verdicts(run, exact, arithmetic):
    content = recompute.content(run, published_folder())
    page = arithmetic(content)
    for name, device in content["devices"].items():
        choice = {"subsets": content["subsets"], "level": 0.95, "margin": MARGIN, "lead": 0.0, "ruled": True}
        assert same_verdicts(page, exact, name, choice) == device["verdicts"]


def test_verdicts_of_any_choice_are_those_of_the_rules(run, exact, arithmetic):
    content = recompute.content(run, published_folder())
    page, rng = arithmetic(content), np.random.default_rng(1)
    for _ in range(12):
        same_verdicts(page, exact, str(rng.choice(list(content["devices"]))), choices(rng, content["subsets"]))


def made_up_run(rng) -> Published:
    """Six subsets in which the claims hold by more or less; now and then an arm is missing, or a baseline is as
    good."""
    auc_of = {"baseline": 0.80, "traditional": 0.85, "colour": 0.7 + 0.2 * rng.random(), "texture": 0.7}
    by_metric = {"auc": {Arm(name): value for name, value in auc_of.items()}}
    quality = {"fid": (30, -60), "precision": (0.3, 0.2), "recall": (0.1, 0.1), "label_auc": (0.8, 0.05)}
    level = {"histogan": 0.0, "unet": 0.5, "dit": 1.0}
    for g, s in IMAGE_SETS:
        for metric, (base, slope) in quality.items():
            worse = {"none": 0, "realism": 0.1, "class": 0.2}[s] * (-1 if metric == "label_auc" else 1)
            value = base + slope * (level[g] - worse) + 100 * (metric == "fid")
            by_metric.setdefault(metric, {})[Arm("quality", g, s)] = value
        for regime in (*MIXED, "synthetic"):
            by_metric["auc"][Arm(regime, g, s)] = (
                0.84 + 0.02 * level[g] + 0.01 * rng.random() - 0.1 * (regime == "synthetic")
            )
    if rng.random() < 0.3:
        del by_metric["auc"][Arm("transfer", "dit", "class")]
    noise, tables = 10 ** rng.uniform(-4, -2), []
    for metric, arms in by_metric.items():
        scale = noise * (100 if metric == "fid" else 1)
        values = {arm: (value + scale * rng.normal(size=6)).tolist() for arm, value in arms.items()}
        tables.append(measured(values, metric))
    return Published("made-up", pd.concat(tables, ignore_index=True), {})


def test_verdicts_of_any_run_are_those_of_the_rules(arithmetic, tmp_path):
    rng, words = np.random.default_rng(2), set()
    for _ in range(12):
        made = made_up_run(rng)
        page = arithmetic(recompute.content(made, tmp_path))
        for _ in range(2):
            words.update(same_verdicts(page, made.results, "classification", choices(rng, list(range(6)))))
    assert words == {"supported", "contradicted", "undecided", "not testable here", "no verdict"}


def test_a_thousand_draws_take_less_than_two_seconds(run, arithmetic):
    content = recompute.content(run, published_folder())
    page = arithmetic(content)
    asked = {"device": content["start"], "subsets": content["subsets"], "arms": ["transfer-unet-none", "traditional"]}
    asked |= {"threshold": 0.5, "unit": "patch", "level": 0.95, "draws": 1000}
    ask = "(asked) => { const began = performance.now(); run.compare(asked); return performance.now() - began; }"
    assert min(page.evaluate(ask, asked) for _ in range(3)) < 2000


# ------------------------------------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def html(tmp_path_factory, run):
    """The rendered page, between empty chapters in the place of those that it links to."""
    pytest.importorskip("jupyter_book")
    from pcamlib.workflow import book

    root, source = tmp_path_factory.mktemp("recompute"), project_root()
    shutil.copy(source / "_config.yml", root)
    for name in ("_ext", "_static", "reference"):
        shutil.copytree(source / "book" / name, root / "book" / name)
    shutil.copy(source / "book" / "references.bib", root / "book")
    (root / "book" / "executed").mkdir()
    chapters = {"index": "", "executed/claims": "", "executed/reference": ""}
    for name in chapters:
        (root / "book" / f"{name}.md").write_text(f"# {name}\n\nA chapter.\n")
    (root / "book" / "executed" / "recompute.md").write_text(recompute.page(published_folder()), encoding="utf-8")
    files = "".join(f"  - file: book/executed/{name}\n" for name in ("claims", "reference", "recompute"))
    (root / "_toc.yml").write_text(f"format: jb-book\nroot: book/index\nchapters:\n{files}")
    return book.render(root).parent / "book" / "executed" / "recompute.html"


def word(page, number):
    return page.locator(".recompute-verdicts tbody tr").nth(number - 1).locator("td").nth(1)


def test_the_exercise_is_solved_by_keyboard_as_the_solution_says(html, chromium, run):
    """Every choice that the solution names is made with keys alone, and gives the verdict that it names."""
    source = recompute.sources(run)[frame.fullest(run.results)]
    found = claims.rule_5(source)
    with opened(chromium) as page:
        page.goto(html.as_uri())
        playwright.expect(word(page, 5)).to_have_text(claims.verdict(claims.rule_5, source).word)
        page.get_by_label("Measured by a").focus()
        for label in ("Confidence, %", "0", "1"):
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.labels[0].textContent.trim()") == label
        if not source.trust.measures:
            page.get_by_label("No verdict on classifiers").focus()
            page.keyboard.press("Space")
            playwright.expect(word(page, 5)).to_contain_text(f"{found.word} (changed)")
        by_level = {level: claims.at_level(found, 1 - level / 100).word for level in range(94, 49, -1)}
        level = next((level for level, at in by_level.items() if at != found.word), None)
        if level:
            page.get_by_label("Confidence, %").focus()
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.type(f"{level}\n")
            playwright.expect(word(page, 5)).to_contain_text(by_level[level])
            assert f"A confidence of {level} %" in recompute.page(published_folder())
        page.get_by_role("button", name="Back to the study's choices").press("Enter")
        playwright.expect(page.locator("#recompute-claims [role=status]")).to_contain_text("None of 13 changed.")
        summary = page.locator(".recompute-verdicts summary").nth(4)
        summary.press("Enter")
        lines = page.locator(".recompute-verdicts tbody tr").nth(4).locator("li")
        playwright.expect(lines.filter(has_text="AUC of U-Net augmentation (none) − traditional")).to_have_count(1)
        assert not page.complaints and not page.asked


def test_choices_of_the_reader_are_followed_and_bad_ones_refused(html, chromium, run):
    with opened(chromium) as page:
        page.goto(html.as_uri())
        said = page.locator("#recompute-difference [role=status]")
        playwright.expect(said).to_contain_text(f"over {run.results['subset'].nunique()} subsets")
        page.get_by_label("Resampling unit").select_option("patch")
        playwright.expect(said).to_contain_text("over 1,000 draws of test patches")
        page.get_by_label("Arm", exact=True).select_option("augmentation-dit-none")
        playwright.expect(said).to_contain_text("DiT augmentation (none) minus Traditional augmentation")
        page.get_by_label("Minus", exact=True).select_option("")
        playwright.expect(said).to_contain_text("% AUC")
        page.get_by_label("Threshold").fill("0.9")
        page.get_by_label("Threshold").press("Tab")
        high = float(page.locator(".recompute-table td").nth(1).inner_text().split()[0])
        page.get_by_label("Threshold").fill("0.1")
        page.get_by_label("Threshold").press("Tab")
        assert float(page.locator(".recompute-table td").nth(1).inner_text().split()[0]) > high, "sensitivity rises"
        page.get_by_label("Threshold").fill("7")
        page.get_by_label("Threshold").press("Tab")
        playwright.expect(said).to_have_text("A number is missing or outside its range.")
        for box in page.locator("#recompute-choices input[type=checkbox]").all():
            box.uncheck()
        page.get_by_label("Threshold").fill("0.5")
        page.get_by_label("Threshold").press("Tab")
        playwright.expect(said).to_contain_text("choose another subset or arm")
        playwright.expect(word(page, 1)).to_contain_text("not testable here")
        assert not page.complaints


@pytest.mark.skipif(not AXE.exists(), reason="no axe-core: npm install --no-save axe-core")
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_no_barrier_wide_or_narrow(html, chromium, theme):
    with opened(chromium) as page:
        page.goto(html.as_uri())
        page.evaluate("(theme) => { document.documentElement.dataset.theme = theme; }", theme)
        page.get_by_label("Confidence, %").fill("60")
        page.locator(".recompute-verdicts summary").nth(4).click()
        page.add_script_tag(content=AXE.read_text())
        for size in (None, NARROW):
            if size:
                page.set_viewport_size(size)
            assert not page.evaluate(AUDIT, {"preload": False, "resultTypes": ["violations"]})
        assert not page.evaluate(WIDER)
        for table in page.locator(".recompute table:visible").all():
            box = table.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= NARROW["width"], "nothing is cut at 390 pixels"


def test_on_paper_and_without_scripts_there_is_a_still_figure(html, chromium):
    with opened(chromium, java_script_enabled=False) as page:
        page.goto(html.as_uri())
        assert page.locator(".recompute-still img").is_visible()
        assert page.get_by_text("This page computes with JavaScript").is_visible()
    with opened(chromium) as page:
        page.goto(html.as_uri())
        page.locator(".recompute-verdicts td").first.wait_for()
        assert page.locator(".recompute-still img").is_hidden() and page.locator(".recompute-off").is_hidden()
        page.emulate_media(media="print")
        assert page.locator(".recompute-still img").is_visible() and page.locator("#recompute-choices").is_hidden()
        assert page.locator(".recompute-verdicts").is_visible()
