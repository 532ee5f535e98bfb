"""The registration: what is in git is valid and older than the results, and a run that differs is told how."""

from __future__ import annotations

import datetime
import subprocess

import made_up
import pytest
import yaml

from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile
from pcamlib.results import load, plan
from pcamlib.results.inference import holm
from pcamlib.results.published import published_runs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Results of two subsets of a run, all of it."""
    return made_up.registered(load(made_up.write_run(tmp_path_factory.mktemp("run") / "made-up", 2), 2))


def made(**changes):
    return plan.Plan.model_validate(made_up.registration(**changes))


def texts(found):
    return [(each.of, each.text) for each in found]


def test_the_registration_in_git_is_that_of_its_profile():
    found, profile = plan.read(), load_profile(plan.read().profile)
    assert (found.seed, found.subsets.count, found.subsets.size) == (
        profile.seed,
        profile.subsets.count,
        profile.subsets.size,
    )
    assert found.generators == profile.generator_names
    assert found.devices.fine_tuned.subsets == profile.classifier.subsets
    assert found.devices.fine_tuned.seeds == profile.classifier.seeds
    assert found.devices.probe.subsets == list(range(found.subsets.count)) and profile.curves


def test_the_published_run_is_as_it_was_registered():
    """A run that is published later fails here until the plan lists, with a reason, what differs."""
    found = plan.read()
    (run,) = [run for run in published_runs() if run.name == found.run]
    assert not plan.predates(found, run.results) and plan.unexplained(found, run.results) == []
    assert sorted(run.results["subset"].unique()) == list(range(run.results["subset"].nunique())), "the first ones"


def test_a_run_that_follows_the_plan_is_unfinished_and_no_more(run):
    assert texts(plan.departures(made(), run)) == []
    assert plan.unfinished(made(), run) == [
        "fine-tuned network: unfinished, 2 of 3 subsets",
        "linear probe: unfinished, 2 of 3 subsets",
    ]
    whole = made(
        subsets={"count": 2, "size": 256},
        devices={k: d | {"subsets": [0, 1]} for k, d in made_up.registration()["devices"].items()},
    )
    assert plan.unfinished(whole, run) == [] and plan.departures(whole, run) == []


def test_a_file_that_is_missing_is_to_come_and_an_arm_that_failed_is_a_departure(tmp_path):
    root = made_up.write_run(tmp_path / "made-up", 2)
    (root / "subset-1/results/probe-unet.json").unlink()
    made_up.not_run(root / "subset-0/results/classification-dit.json", regime="transfer", selection="class")
    results = made_up.registered(load(root, 2))
    assert plan.unfinished(made(), results)[1] == "linear probe: unfinished, 1 of 3 subsets"
    assert texts(plan.departures(made(), results)) == [
        ("arms", "fine-tuned network, subset 0: not run, because kept 3 of 256: DiT transfer (class-based)")
    ]


@pytest.mark.parametrize(
    ("column", "value", "of", "says"),
    [
        ("data", "other", "data", "the data: other instead of procedural patches, no tissue"),
        ("profile", "slice", "profile", "the profile: slice instead of demo"),
        ("profile_sha", "p1", "profile", "the settings are not those of profile demo as it is now"),
        ("study_seed", lambda df: df["study_seed"] + 7000, "seed", "the seed: 7 instead of 0"),
        ("subset_size", 500, "size", "real patches of a subset: 500 instead of 256"),
        ("test_n", 99, "test", "test patches: 99 instead of 1024"),
        ("created", "2025-12-31T23:59:59+00:00", "date", "result files older than the registration"),
    ],
)
def test_every_other_scale_is_told(run, column, value, of, says):
    changed = run.assign(**{column: value, "phantom": column != "data"}).astype(run.dtypes)
    ((subject, text),) = texts(plan.departures(made(), changed))
    assert subject == of and text.endswith(says)
    listed = made(departures=[{"date": "2026-01-02", "of": of, "what": "another", "reason": "a reason"}])
    assert plan.unexplained(made(), changed) and plan.unexplained(listed, changed) == []


def test_other_subsets_arms_generators_and_seeds_are_told(run):
    gap = run.assign(subset=run["subset"] * 2, study_seed=run["study_seed"] * 2)
    assert texts(plan.departures(made(), gap)) == [("subsets", "left out, though later ones are there: subset 1")]
    beyond = run.assign(subset=run["subset"] * 3, study_seed=run["study_seed"] * 3)
    assert ("subsets", "not planned: subset 3") in texts(plan.departures(made(), beyond))
    fewer = made(generators=["histogan", "unet"])
    found = texts(plan.departures(fewer, run))
    assert found[0] == ("generators", "generator DiT was not planned")
    assert found[1][1].startswith("fine-tuned network, subset 0 and 1: not planned: ") and "and 6 more" in found[1][1]
    again = run["arm"].eq("traditional") & run["kind"].eq("classification") & run["subset"].eq(0)
    assert texts(plan.departures(made(), run.assign(seed=run["seed"].mask(again, 1)))) == [
        ("seeds", "fine-tuned network: 2 seeds where 1 was planned")
    ]
    only = made_up.registration()["devices"]
    only["fine-tuned"] |= {"subsets": [1], "also": ["traditional"]}
    ((subject, text),) = texts(plan.departures(made(devices=only), run))
    assert subject == "arms" and text.startswith("fine-tuned network, subset 0: not planned: ")


def test_a_run_may_have_pseudo_labels_or_not(run):
    assert set(run.loc[run["kind"] == "probe", "regime"]) >= set(paper.PSEUDO)
    without = run[~run["regime"].isin(paper.PSEUDO)]
    for results in (run, without):
        assert plan.departures(made(), results) == [] and "2 of 3" in plan.unfinished(made(), results)[1]


def of_gains(results, best, others=0.0, real=0.02, sd=0.001):
    """The run's probes, where U-Net transfer gains `best` over the stronger control, other uses `others`, real patches
    `real`."""
    sign = results["subset"].map({0: 0, 1: 1, 2: -1})
    gain = others + sd * sign
    gain = gain.mask(results["arm"].str.startswith("transfer-unet"), best + sd * sign)
    gain = gain.mask(results["arm"] == "double-real", real + sd * sign)
    ours = (results["kind"] == "probe") & (results["metric"] == "auc") & (results["status"] == "ok")
    changed = ours & (results["regime"].isin(("transfer", "augmentation")) | results["arm"].eq("double-real"))
    control = 0.875 + 0.01 * results["subset"]  # real to real
    return results.assign(value=results["value"].mask(changed, control + gain))


@pytest.mark.parametrize(
    ("best", "others", "real", "sd", "helps", "does_not"),
    [
        (0.01, 0.0, 0.02, 0.0003, True, False),
        (0.01, 0.0, 0.02, 0.003, False, False),  # p = 0.03 alone, 0.18 among six
        (0.003, 0.0, 0.02, 0.0001, False, True),  # sure, and too small to matter
        (0.003, 0.0, 0.002, 0.0001, False, False),  # real patches are not worth more
        (0.001, -0.01, 0.02, 0.02, False, False),  # intervals too wide to say anything
    ],
)
def test_the_registered_criteria(tmp_path, best, others, real, sd, helps, does_not):
    results = of_gains(load(made_up.write_run(tmp_path / "made-up", 3), 3), best, others, real, sd)
    found = plan.decision(made(), results)
    assert (
        found.best == "U-Net transfer" and found.test.mean == pytest.approx(best) and found.real == pytest.approx(real)
    )
    assert (found.helps, found.does_not) == (helps, does_not)
    assert found.holm == pytest.approx(min(1, 6 * found.test.p)) or best - others < sd


def test_no_decision_without_all_contrasts(run):
    assert plan.decision(made(), run) is None, "no spread, no intervals"
    results = of_gains(run, 0.01)
    assert plan.decision(made(), results)
    assert plan.decision(made(), results[~results["arm"].str.startswith("transfer-dit")]) is None
    assert plan.decision(made(), results[results["subset"] == 0]) is None
    assert plan.decision(made(), results[~results["regime"].isin(paper.TRIVIAL)]) is None


def test_holm_by_hand():
    assert holm([0.03, 0.01, 0.04, 0.5]) == pytest.approx([0.09, 0.04, 0.09, 0.5])
    assert holm([0.6, 0.9]) == [1.0, 1.0] and holm([]) == []


def test_a_run_is_older_only_if_all_of_it_is(run):
    later = made(registered=datetime.date(2026, 1, 2))
    assert plan.predates(later, run) and not plan.predates(made(), run)
    mixed = run.assign(created=run["created"].mask(run["subset"] == 1, "2026-01-03T00:00:00+00:00"))
    assert not plan.predates(later, mixed)
    assert [found.of for found in plan.departures(later, mixed)] == ["date"]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"run": None}, "'run' is None: input should be a valid string"),
        ({"runs": "x"}, "the key 'runs' is unknown: did you mean 'run'?"),
        ({"stopping": {"rule": "a", "fallback": "b"}}, "the key 'stopping.unseen' is missing: add it"),
        ({"would_change_our_mind": {"for": "a", "again": "b", "against": "c"}}, "did you mean 'against'?"),
        ({"generators": ["unet", "unet"]}, "'unet' is used twice"),
        ({"subsets": {"count": 2, "size": 256}}, "names subset 2, but subsets.count is 2"),
        (
            {"departures": [{"date": "2025-01-01", "of": "arms", "what": "w", "reason": "r"}]},
            "is older than the registration",
        ),
        (
            {"departures": [{"date": "2026-01-01", "of": "arm", "what": "w", "reason": "r"}]},
            "'departures.0.of' is 'arm'",
        ),
        ({"departures": [{"day": 1}]}, "the key 'departures.0."),
    ],
)
def test_a_wrong_registration_is_refused_in_one_sentence(tmp_path, changes, says):
    path = tmp_path / "plan.yml"
    path.write_text(yaml.safe_dump(made_up.registration(**changes)))
    with pytest.raises(StudyError) as error:
        plan.read(path)
    assert str(error.value).startswith(f"{path}: ") and says in str(error.value) and "\n" not in str(error.value)


def test_an_arm_that_does_not_exist_and_a_missing_file_are_refused(tmp_path):
    devices = made_up.registration()["devices"]
    devices["probe"]["also"] = ["traditionell"]
    path = tmp_path / "plan.yml"
    path.write_text(yaml.safe_dump(made_up.registration(devices=devices)))
    with pytest.raises(StudyError, match="devices.probe.also names 'traditionell', which is no arm"):
        plan.read(path)
    with pytest.raises(StudyError, match="other.yml does not exist"):
        plan.read(tmp_path / "other.yml")


def git(folder, *words):
    who = ["-c", "user.name=n", "-c", "user.email=e@example.org"]
    return subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True, text=True).stdout.strip()


def test_git_knows_who_added_the_plan_and_says_when_it_does_not(tmp_path):
    path = tmp_path / "repository" / "plan.yml"
    path.parent.mkdir()
    path.write_text("a")
    assert plan.history(path) is None, "no repository"
    git(path.parent, "init", "-q")
    assert plan.history(path) is None, "not committed"
    for text in ("first", "second"):
        path.write_text(text)
        git(path.parent, "add", "plan.yml")
        git(path.parent, "commit", "-q", "-m", f"The {text}")
    found = plan.history(path)
    assert [commit.subject for commit in found] == ["The first", "The second"]
    assert git(path.parent, "rev-parse", "HEAD~").startswith(found[0].sha) and found[0].when.tzinfo
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{path.parent}", "shallow")
    assert plan.history(tmp_path / "shallow" / "plan.yml") is None, "the first commit there is not the first"
