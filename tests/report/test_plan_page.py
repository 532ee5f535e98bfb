"""The page of the registration says what was planned, when, and how the published run compares."""

from __future__ import annotations

import datetime
import subprocess

import hostile
import made_up
import pytest
import yaml

from pcamlib.core.errors import StudyError
from pcamlib.core.text import inert
from pcamlib.report import plan_page
from pcamlib.results import compact, load, plan
from pcamlib.results.published import published_folder, published_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return made_up.registered(load(made_up.write_run(tmp_path_factory.mktemp("run") / "made-up", 2), 2))


@pytest.fixture
def page(tmp_path):
    """page(results, **changes): the page of a folder with a registration, and a run if results are given."""

    def made(results=None, **changes):
        (tmp_path / "plan.yml").write_text(yaml.safe_dump(made_up.registration(**changes), allow_unicode=True))
        if results is not None:
            compact.write(results, tmp_path / "made-up.csv")
        return plan_page.page(tmp_path)

    return made


def test_the_page_of_the_book():
    """Whatever is published: an older run is called that, any other is compared."""
    text, planned = plan_page.page(published_folder()), plan.read()
    assert text.startswith("# The registration\n")
    for said in (planned.question, planned.would_change_our_mind.against, *planned.headline, planned.stopping.unseen):
        assert inert(said) in text
    assert (published_folder() / "plan.yml").read_text().rstrip() in text, "the file itself"
    (run,) = [run for run in published_runs() if run.name == planned.run]
    older = plan.predates(planned, run.results)
    assert ("is older than this registration" in text) == older != ("First result:" in text)
    assert "Not explained" not in text
    assert text == plan_page.page(published_folder())


def test_a_run_that_follows_the_plan(page, run):
    text = page(run)
    for line in (
        "- First result: 2026-01-01 00:00 UTC.",
        "- Fine-tuned network: unfinished, 2 of 3 subsets.",
        "- Linear probe: unfinished, 2 of 3 subsets.",
        (
            "- What would change our mind cannot be judged: it takes intervals of all contrasts, by a probe that"
            " measures something."
        ),
        "- No departure from the plan.",
    ):
        assert f"{line}\n" in text
    assert "expected" not in text.split("## The plan")[0], "values that are the same in every subset have no interval"
    assert "Which commit added it is not known in this copy" in text


def test_widths_stand_beside_the_expected_ones(page, run):
    uneven = run["arm"].eq("transfer-unet-none") & run["subset"].eq(1) & run["metric"].eq("auc")
    text = page(run.assign(value=run["value"].mask(uneven, run["value"] + 0.003)))
    # one selection of three: the difference varies by 0.1 points, so that the interval is 12.706 x 0.1 / 2
    for line in (
        (
            "- Linear probe: half of the 95 % intervals of the headline differences is 0.64 to 0.64 points of AUC,"
            " median 0.64; 0.35 is expected of 3 subsets."
        ),
        (
            "- Fine-tuned network: half of the 95 % intervals of the headline differences is 0.64 to 0.64 points of"
            " AUC, median 0.64; no width was promised."
        ),
    ):
        assert line in text


def test_the_registered_criteria_are_judged(page, run, tmp_path):
    """Every use of a generator gains 0.1 points less in one subset and more in the other."""
    mixed = run["regime"].isin(("transfer", "augmentation", "double-real")) & run["metric"].eq("auc")
    changed = run.assign(value=run["value"].mask(mixed, run["value"] + 0.001 * (2 * run["subset"] - 1)))
    text = page(changed)
    # 89.2 against 87.5 by transfer from real to real, with a standard error of 0.1 and one degree of freedom:
    # p = 0.037 alone, and four times that, since two of the six contrasts (of HistoGAN, below the control) are surer
    assert (
        "- To convince us that generated patches help: **not met so far**. The highest contrast by the probe is U-Net"
        " transfer, +1.70 points (+0.43 to +2.97) over 2 subsets, p = 0.150 after Holm's correction.\n" in text
    )
    assert (
        "- To convince us that they do not: **not met so far**. The intervals of the generators' contrasts end at +2.97"
        " points or below, and twice the real patches gain +4.50.\n" in text
    )
    state = plan_page.state(changed, "made-up", tmp_path)
    assert "for a benefit is not met so far; its criterion against one is not met so far." in state
    assert plan_page.state(changed, "another", tmp_path) == ""


def test_departures_are_listed_with_their_reasons(page, run):
    other = run.assign(test_n=run["test_n"].mask(run["test_n"].notna(), 99))
    assert "- Departure: test patches: 99 instead of 1024. **Not explained.**\n" in page(other)
    told = [
        {"date": datetime.date(2026, 1, 2), "of": "test", "what": "Fewer test patches.", "reason": "A disk failed."}
    ]
    text = page(other, departures=told)
    assert "- Departure: test patches: 99 instead of 1024.\n" in text
    assert "- Explained on 2026-01-02: Fewer test patches. Reason: A disk failed.\n" in text
    assert "No departure" not in text


def test_a_run_that_is_older_or_absent_is_not_compared(page, run):
    assert "No run called `made-up` is published in this copy: not run." in page()
    text = page(run, registered=datetime.date(2026, 1, 2))
    assert "**The published run `made-up` is older than this registration.** Its last result is of 2026-01-01." in text
    assert "unfinished" not in text and "Departure:" not in text


def test_without_a_registration_the_page_says_so_and_a_wrong_one_is_an_error(tmp_path):
    assert "This copy of the book holds no registration." in plan_page.page(tmp_path)
    (tmp_path / "plan.yml").write_text("run: x\n")
    with pytest.raises(StudyError, match="plan.yml: the key 'registered' is missing"):
        plan_page.page(tmp_path)


def test_commits_are_shown_and_results_before_the_first_are_told(page, run, tmp_path):
    def git(*words):
        who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
        subprocess.run(["git", *who, *words], cwd=tmp_path, check=True, capture_output=True)

    git("init", "-q")
    for subject in ("Plan it", "Add a departure `x`"):
        page(run, question=subject)
        git("add", "plan.yml")
        git("commit", "-q", "-m", subject)
        first, *later = plan.history(tmp_path / "plan.yml")
        text = plan_page.page(tmp_path)
        assert f"Commit `{first.sha}` of {first.when:%Y-%m-%d %H:%M} UTC (*Plan it*) added it." in text
        assert ("It has not been changed since." in text) == (not later)
    assert "It has been changed once since:\n\n- `" in text and "(*Add a departure \\`x\\`*)" in text
    assert "- First result: 2026-01-01 00:00 UTC, **before** the plan was committed." in text
    future = run.assign(created="2999-01-01T00:00:00+00:00", arm_created=None)
    assert "- First result: 2999-01-01 00:00 UTC, after the plan was committed." in page(future, question=subject)


def test_texts_of_a_plan_are_text(page):
    for name in hostile.VISIBLE:
        lines = page(question=name, later=[name]).split("::::{dropdown}")[0].splitlines()
        assert f"- **Question.** {inert(name)}" in lines and f"  - {inert(name)}" in lines
