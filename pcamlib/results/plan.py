"""The registration of the published study, book/reference/plan.yml, and how a published run compares with it.

The file is committed before the first result. These are its keys; text is for readers, the rest is compared.

- registered: the day (YYYY-MM-DD). run: the name that the run is published by. question: text.
- data: name, and the number of patches of train, valid and test. profile, seed: those of the run.
- subsets: count, and size in real patches. generators, selections: names.
- devices: probe and fine-tuned, each with "arms: all" in the numbered `subsets` and the arms of `also` in every other
  one; `seeds` of a classifier; `half_interval`, half of the expected 95 % interval of a headline difference in points
  of AUC, or null where no useful width was expected; and the `reason` for these numbers.
- headline: texts. claims, curves: text. stopping: rule, fallback and unseen. would_change_our_mind: for and against.
  later: texts. known_before: text.
- departures: added later, each with its date, what differs ("of", one of SUBJECTS), what was done and the reason.
"""

from __future__ import annotations

import datetime
import math
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self, get_args

import pandas as pd
from pydantic import Field, ValidationError, field_validator, model_validator

from pcamlib.core import paper, strict_yaml
from pcamlib.core.errors import StudyError
from pcamlib.core.generator_list import check
from pcamlib.core.sections import Positive, Section, Seed, complaint
from pcamlib.results import frame, headline, rivals
from pcamlib.results.arms import MIXED, PROBED, PSEUDO, TWICE, classifiers, generators_of, of_source
from pcamlib.results.claims import ALPHA
from pcamlib.results.inference import Estimate, holm
from pcamlib.results.loading import NO_FILE
from pcamlib.results.published import data_name, published_folder

Text = Annotated[str, Field(min_length=1)]
Subject = Literal[
    "data", "profile", "seed", "size", "test", "generators", "subsets", "arms", "seeds", "date", "analysis"
]
SUBJECTS = get_args(Subject)
"""What a run can depart in. "analysis" is what no comparison of results finds: how numbers were turned into answers."""
MATTERS = 0.0035
"""The gain of AUC from which the registration calls a generator useful."""
SHOWN = 3  # arms of a sentence that are named


class Patches(Section):
    """The data set: what readers call it, and its numbers of patches."""

    name: Text
    train: Positive
    valid: Positive
    test: Positive


class Subsets(Section):
    """Number of subsets, and real patches in each."""

    count: Positive
    size: Positive


class Measured(Section):
    """What one device measures: all arms in `subsets`, those named in `also` in the others."""

    arms: Literal["all"]
    subsets: Annotated[list[Seed], Field(min_length=1)]
    also: list[Text] = []
    seeds: Positive
    half_interval: Annotated[float, Field(gt=0)] | None
    reason: Text


class Devices(Section):
    """The two measuring devices."""

    probe: Measured
    fine_tuned: Annotated[Measured, Field(alias="fine-tuned")]


class Stopping(Section):
    """When the study ends, what is reported if it must end earlier, and what does not decide that."""

    rule: Text
    fallback: Text
    unseen: Text


class Mind(Section):
    """Results that would change our mind, in either direction."""

    in_favour: Annotated[Text, Field(alias="for")]
    against: Text


class Departure(Section):
    """A way in which the study was not done as it was planned."""

    date: datetime.date
    of: Subject
    what: Text
    reason: Text


class Plan(Section):
    """A checked registration (see the module)."""

    registered: datetime.date
    run: Text
    question: Text
    data: Patches
    profile: Text
    seed: Seed
    subsets: Subsets
    generators: Annotated[list[Text], Field(min_length=1)]
    selections: Annotated[list[Literal["none", "realism", "class"]], Field(min_length=1)]
    devices: Devices
    headline: Annotated[list[Text], Field(min_length=1)]
    claims: Text
    curves: Text
    stopping: Stopping
    would_change_our_mind: Mind
    later: list[Text]
    known_before: Text
    departures: list[Departure]

    _names = field_validator("generators", mode="before")(check)

    @model_validator(mode="after")
    def _exists(self) -> Self:
        known = {arm.name for arm in classifiers(self.generators)}
        for name, device in (("probe", self.devices.probe), ("fine-tuned", self.devices.fine_tuned)):
            for k in device.subsets:
                if k >= self.subsets.count:
                    raise ValueError(
                        f"devices.{name}.subsets names subset {k}, but subsets.count is {self.subsets.count}"
                    )
            for arm in device.also:
                if arm not in known:
                    raise ValueError(f"devices.{name}.also names {arm!r}, which is no arm")
        early = [d.date for d in self.departures if d.date < self.registered]
        if early:
            raise ValueError(f"a departure of {early[0]} is older than the registration of {self.registered}")
        return self

    def planned(self, device: str, subset: int) -> set[str]:
        """The arms, by `Arm.name`, that one of `frame.DEVICES` measures in a subset.

        A regression has no steps to double, and stronger augmentation is for networks. Pseudo-labels are the plan's
        `later`: a run may have them or not.
        """
        if device == "probe":
            which, real = self.devices.probe, [arm for arm in PROBED if arm not in (TWICE, *PSEUDO)]
        else:
            which, real = self.devices.fine_tuned, of_source(None)
        if subset not in which.subsets:
            return set(which.also)
        made = [arm for g in self.generators for arm in of_source(g) if arm.selection in self.selections]
        return {arm.name for arm in (*real, *made)}


def read(path: Path | None = None) -> Plan:
    """The registration in a file, by default that of the published study; StudyError, in one sentence, if it is
    none."""
    path = path or published_folder() / "plan.yml"
    if not path.is_file():
        raise StudyError(f"{path} does not exist: a published study has its registration there.")
    try:
        return Plan.model_validate(strict_yaml.load(path))
    except ValidationError as error:
        raise StudyError(f"{path}: {complaint(error, Plan, 'pcamlib/results/plan.py lists the keys')}") from None


class Commit(NamedTuple):
    """A commit: its short hash, when it was made (UTC), and its subject."""

    sha: str
    when: datetime.datetime
    subject: str


def history(path: Path) -> list[Commit] | None:
    """The commits that added and changed a file, the first one first; None where git does not know all of them.

    That is: without git or a repository, for a file that is not committed, and in a clone of the latest commits only.
    """

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=path.parent, capture_output=True, text=True, errors="replace", check=True
        )
        return done.stdout.strip()

    try:
        if git("rev-parse", "--is-shallow-repository") != "false":
            return None
        lines = git("log", "--reverse", "--format=%h%x09%cI%x09%s", "--", path.name).splitlines()
    except (OSError, subprocess.CalledProcessError):
        return None
    found = [line.split("\t", 2) for line in lines]
    utc = datetime.timezone.utc
    return [
        Commit(sha, datetime.datetime.fromisoformat(when).astimezone(utc), text) for sha, when, text in found
    ] or None


# ------------------------------------------------------------------------------------------------ compared with a run


class Found(NamedTuple):
    """A difference between a run and the plan: one of SUBJECTS, and a sentence."""

    of: str
    text: str


def predates(plan: Plan, results: pd.DataFrame) -> bool:
    """Whether all results were made before the day of the registration, so that the plan is not about them."""
    return _days(results).max() < plan.registered


def unfinished(plan: Plan, results: pd.DataFrame) -> list[str]:
    """By device that is not through: "linear probe: unfinished, 3 of 8 subsets"."""
    said = []
    for device, name in frame.DEVICES.items():
        whole = _which(plan, device).subsets
        done = [
            k for k in whole if not any(reason == NO_FILE for reason in _lacking(plan, results, device, k).values())
        ]
        if len(done) < len(whole):
            said.append(f"{name}: unfinished, {len(done)} of {len(whole)} subsets")
    return said


def departures(plan: Plan, results: pd.DataFrame) -> list[Found]:
    """In what a run differs from the plan; subsets that are still to come do not count (see `unfinished`)."""
    return [*_scale(plan, results), *_subsets(plan, results), *_arms(plan, results)]


def unexplained(plan: Plan, results: pd.DataFrame) -> list[Found]:
    """The differences for which the plan lists no departure of the same subject."""
    listed = {departure.of for departure in plan.departures}
    return [found for found in departures(plan, results) if found.of not in listed]


def _scale(plan: Plan, results: pd.DataFrame) -> Iterator[Found]:
    """Data, settings, counts and dates."""
    for subject, what, wanted, there in (
        ("data", "the data", plan.data.name, {data_name(results)}),
        ("profile", "the profile", plan.profile, set(results["profile"].dropna())),
        (
            "seed",
            "the seed",
            plan.seed,
            set(((results["study_seed"] - results["subset"]) // 1000).dropna()),
        ),  # see Study.seed
        ("size", "real patches of a subset", plan.subsets.size, set(results["subset_size"].dropna())),
        ("test", "test patches", plan.data.test, set(_classifiers(results)["test_n"].dropna())),
    ):
        other = sorted(there - {wanted})
        if other:
            yield Found(subject, f"{what}: {' and '.join(map(str, other))} instead of {wanted}")
    if set(results["profile"].dropna()) == {plan.profile} and frame.profile_of(results) is None:
        yield Found("profile", f"the settings are not those of profile {plan.profile} as it is now")
    made = [name for name in generators_of(results) if name in set(_classifiers(results)["generator"])]
    for name in sorted(set(made) - set(plan.generators)):
        yield Found("generators", f"generator {paper.generator_name(name)} was not planned")
    early = results.loc[results["data"].notna(), "file"][_days(results) < plan.registered].nunique()
    if early:
        yield Found("date", f"{early} result file{'s' * (early != 1)} older than the registration")


def _subsets(plan: Plan, results: pd.DataFrame) -> Iterator[Found]:
    there = set(results["subset"])
    beyond = sorted(k for k in there if k >= plan.subsets.count)
    skipped = sorted(set(range(min(max(there), plan.subsets.count))) - there)
    if beyond:
        yield Found("subsets", f"not planned: subset {_listed(beyond)}")
    if skipped:
        yield Found("subsets", f"left out, though later ones are there: subset {_listed(skipped)}")


def _arms(plan: Plan, results: pd.DataFrame) -> Iterator[Found]:
    """Arms that were not run for another reason than that they are to come, arms that were not planned, seeds."""
    for device, name in frame.DEVICES.items():
        lines = results[results["kind"] == device]
        titles = {line.arm: frame.arm_of(line).title for line in lines.drop_duplicates("arm").itertuples()}
        ran = frame.of_kind(results, device)
        ran = ran[~ran["regime"].isin(paper.PSEUDO)]
        why: dict[tuple[str, str], list[int]] = {}  # subsets by arm and what is wrong with it
        for k in sorted(set(results["subset"]) & set(range(plan.subsets.count))):
            lacking = _lacking(plan, results, device, k)
            for arm in sorted(set(ran.loc[ran["subset"] == k, "arm"]) - plan.planned(device, k)):
                why.setdefault((arm, "not planned"), []).append(k)
            for arm in sorted(arm for arm, reason in lacking.items() if reason != NO_FILE):
                why.setdefault((arm, f"not run, because {lacking[arm]}"), []).append(k)
        alike: dict[tuple[str, str], list[str]] = {}
        for (arm, what), subsets in why.items():
            alike.setdefault((what, _listed(subsets)), []).append(titles[arm])
        for (what, subsets), arms in alike.items():
            more = f" and {len(arms) - SHOWN} more" if len(arms) > SHOWN else ""
            yield Found("arms", f"{name}, subset {subsets}: {what}: {', '.join(arms[:SHOWN])}{more}")
        if set(ran["seed"]) - set(range(_which(plan, device).seeds)):
            yield Found(
                "seeds", f"{name}: {ran['seed'].nunique()} seeds where {_which(plan, device).seeds} was planned"
            )


class Decision(NamedTuple):
    """What the registered criteria say of a run, by the probe; differences of AUC as fractions.

    best: the headline contrast of a generator with the highest mean, by title, with its test. holm: its p value after
    Holm's correction over the contrasts. highest: where the interval that reaches furthest ends. real: the mean gain by
    twice the real patches.
    """

    best: str
    test: Estimate
    holm: float
    highest: float
    real: float

    @property
    def helps(self) -> bool:
        """Whether what was to convince us that generated patches help is met."""
        return self.test.mean >= MATTERS and self.holm < ALPHA

    @property
    def does_not(self) -> bool:
        """Whether what was to convince us that they do not is met."""
        return self.highest < self.real and self.test.mean < MATTERS


def decision(plan: Plan, results: pd.DataFrame) -> Decision | None:
    """The plan's `would_change_our_mind` put to a run: transfer and augmentation by each planned generator, by the
    probe.

    None unless each of these contrasts and the gain by twice the real patches has an interval, and the probe beats the
    trivial baselines. Texts of the plan say the same: a best contrast of at least MATTERS with p < ALPHA after Holm's
    correction; or all intervals below the gain by real patches and the best contrast below MATTERS.
    """
    probe = frame.by_device(results, "probe")
    rows = headline.differences(probe)
    tests = {row.title: row.test for row in rows if row.generator in plan.generators}
    real = next((row.mean for row in rows if row.title == headline.DOUBLE.title), None)
    known = {title: test for title, test in tests.items() if test and math.isfinite(test.high)}
    if len(known) < len(MIXED) * len(plan.generators) or real is None or rivals.trust(probe).measures is not True:
        return None
    best = max(known, key=lambda title: known[title].mean)
    adjusted = dict(zip(known, holm([test.p for test in known.values()])))
    return Decision(best, known[best], adjusted[best], max(test.high for test in known.values()), real)


def _which(plan: Plan, device: str) -> Measured:
    return plan.devices.probe if device == "probe" else plan.devices.fine_tuned


def _classifiers(results: pd.DataFrame) -> pd.DataFrame:
    """The lines of both devices."""
    return results[results["kind"].isin(frame.DEVICES) & (results["status"] == "ok")]


def _lacking(plan: Plan, results: pd.DataFrame, device: str, subset: int) -> dict[str, str]:
    """The planned arms that have no AUC in a subset, each with the reason; NO_FILE for one that is to come."""
    lines = results[(results["kind"] == device) & (results["subset"] == subset) & (results["metric"] == "auc")]
    ok = set(lines.loc[lines["status"] == "ok", "arm"])
    why = dict(zip(lines["arm"], lines["reason"]))
    return {arm: why.get(arm, NO_FILE) for arm in plan.planned(device, subset) - ok}


def _days(results: pd.DataFrame) -> pd.Series:
    """The day, UTC, of every line that has a provenance."""
    return pd.to_datetime(results["created"].dropna(), utc=True, format="ISO8601").dt.date


def _listed(numbers: list[int]) -> str:
    return " and ".join(map(str, numbers)) if len(numbers) < 3 else ", ".join(map(str, numbers))
