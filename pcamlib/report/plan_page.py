"""The page of the registration: what was planned and when, and how the published run compares with it.

`page` is called by every build of the book. The plan is read by `pcamlib.results.plan`.
"""

from __future__ import annotations

import datetime
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd

from pcamlib.core import paper
from pcamlib.core.text import inert
from pcamlib.models import generators
from pcamlib.report.tables import points, span
from pcamlib.results import frame, headline
from pcamlib.results import plan as plans
from pcamlib.results.arms import classifiers
from pcamlib.results.frame import NOT_RUN
from pcamlib.results.plan import Commit, Measured, Plan
from pcamlib.results.published import Published, published_runs

FILE = "book/reference/plan.yml"


def page(where: Path) -> str:
    """The chapter as MyST Markdown; where: the folder of published runs, which holds the registration too.

    StudyError if there is a registration that cannot be read.
    """
    text = [
        "# The registration",
        "",
        "After a study its authors can always find a question that its results answer. So the published study was",
        "planned before its first result: what is compared, on how many subsets, when it ends, and which results",
        "would change our mind.",
        "",
    ]
    path = where / "plan.yml"
    if not path.exists():
        return "\n".join([*text, "This copy of the book holds no registration.", ""])
    plan, commits = plans.read(path), plans.history(path)
    run = next((run for run in published_runs(where) if run.name == plan.run), None)
    return "\n".join(
        [
            *text,
            *_when(plan, commits),
            "",
            "## The published run beside it",
            "",
            *_compared(plan, run, commits),
            "",
            "## The plan",
            "",
            *_planned(plan),
            "",
            "::::{dropdown} The file, word for word",
            *_fenced(path.read_text(encoding="utf-8")),
            "::::",
            "",
        ]
    )


def state(results: pd.DataFrame, published: str, where: Path) -> str:
    """How much of the registered study the run `published` has done, in Markdown; empty for a run that was not
    registered, or is older than its plan. where: the folder of published runs."""
    path = where / "plan.yml"
    if not path.exists() or (plan := plans.read(path)).run != published or plans.predates(plan, results):
        return ""
    missing = [text.replace(": unfinished,", "") for text in plans.unfinished(plan, results)]
    done = f"finished so far: {', '.join(missing)}" if missing else "all planned subsets are finished"
    said = f"The study was planned before its first result ({inert(FILE, 'code')}); {inert(done)}."
    if found := plans.decision(plan, results):
        yes = _met(plan, results)
        said += (
            f" Its criterion for a benefit is {yes[found.helps]}; its criterion against one is {yes[found.does_not]}."
        )
    if count := len(plans.departures(plan, results)) + len(plan.departures):
        said += f" Departures from the plan: {count}, listed on the book's page *The registration*."
    return said


def _when(plan: Plan, commits: list[Commit] | None) -> list[str]:
    """Since when the file is there, and what has changed in it."""
    dated = f"The file {inert(FILE, 'code')} is dated {plan.registered}."
    if not commits:
        return [
            f"{dated} Which commit added it is not known in this copy, which was built without git or without the whole"
            f" history. In a full clone, {inert(f'git log --diff-filter=A -- {FILE}', 'code')} tells."
        ]
    first, *later = commits
    said = [f"{dated} Commit {_commit(first)} added it."]
    if not later:
        return [*said, "It has not been changed since."]
    return [
        *said,
        f"It has been changed {'once' if len(later) == 1 else f'{len(later)} times'} since:",
        "",
        *(f"- {_commit(c)}" for c in later),
    ]


def _commit(commit: Commit) -> str:
    return f"{inert(commit.sha, 'code')} of {commit.when:%Y-%m-%d %H:%M} UTC (*{inert(commit.subject)}*)"


# ------------------------------------------------------------------------------------------------ the run


def _compared(plan: Plan, run: Published | None, commits: list[Commit] | None) -> list[str]:
    """How the run of the plan's name compares with it."""
    name = inert(plan.run, "code")
    if run is None:
        return [f"No run called {name} is published in this copy: {NOT_RUN}."]
    if plans.predates(plan, run.results):
        last = run.results["created"].dropna().max()[:10]
        return [
            f"**The published run {name} is older than this registration.** Its last result is of {inert(last)}. It is"
            " another study, with other settings, so it is not compared with the plan. The registered study will take"
            " its place."
        ]
    unfinished, found = plans.unfinished(plan, run.results), plans.departures(plan, run.results)
    unexplained = plans.unexplained(plan, run.results)
    lines = [_first_result(run.results, commits)]
    if unfinished:
        lines += [f"{inert(text[0].upper() + text[1:])}." for text in unfinished]
    else:
        lines += ["All planned subsets are finished."]
    lines += [line for device in frame.DEVICES if (line := _width(plan, run.results, device))]
    lines += _decided(plan, run.results)
    lines += [f"Departure: {inert(each.text)}." + " **Not explained.**" * (each in unexplained) for each in found]
    lines += [f"Explained on {d.date}: {inert(d.what)} Reason: {inert(d.reason)}" for d in plan.departures]
    if not found and not plan.departures:
        lines += ["No departure from the plan."]
    return [f"- {line}" for line in filter(None, lines)]


def _first_result(results: pd.DataFrame, commits: list[Commit] | None) -> str:
    """When the first number was measured that says anything about generated patches or classifiers."""
    measured = results[(results["kind"] != "training") & (results["status"] == "ok")]
    times = pd.concat([measured["created"], measured["arm_created"]]).dropna()
    first = datetime.datetime.fromisoformat(times.min())
    said = f"First result: {first:%Y-%m-%d %H:%M} UTC"
    if not commits:
        return f"{said}."
    return (
        f"{said}, **before** the plan was committed."
        if first < commits[0].when
        else f"{said}, after the plan was committed."
    )


def _width(plan: Plan, results: pd.DataFrame, device: str) -> str:
    """How wide the intervals of the headline differences of a device are, and were to be."""
    wanted, rows = _devices(plan)[device].half_interval, headline.differences(frame.by_device(results, device))
    halves = [100 * (r.test.high - r.test.low) / 2 for r in rows if r.test and math.isfinite(r.test.high)]
    if not halves:
        return ""
    planned = len(_devices(plan)[device].subsets)
    expected = "no width was promised" if wanted is None else f"{wanted:g} is expected of {planned} subsets"
    return (
        f"{frame.DEVICES[device].capitalize()}: half of the 95 % intervals of the headline differences is"
        f" {min(halves):.2f} to {max(halves):.2f} points of AUC, median {float(np.median(halves)):.2f}; {expected}."
    )


def _decided(plan: Plan, results: pd.DataFrame) -> list[str]:
    """Whether what was to change our mind was found."""
    found = plans.decision(plan, results)
    if found is None:
        return [
            "What would change our mind cannot be judged: it takes intervals of all contrasts, by a probe that measures"
            " something."
        ]
    said = (
        f"{found.best}, {points(found.test.mean)} points ({span(found.test.low, found.test.high)}) over {found.test.n}"
        " subsets"
    )
    yes = _met(plan, results)
    return [
        (
            f"To convince us that generated patches help: **{yes[found.helps]}**. The highest contrast by the probe is"
            f" {inert(said)}, p = {found.holm:.3f} after Holm's correction."
        ),
        (
            f"To convince us that they do not: **{yes[found.does_not]}**. The intervals of the generators' contrasts"
            f" end at {points(found.highest)} points or below, and twice the real patches gain {points(found.real)}."
        ),
    ]


def _met(plan: Plan, results: pd.DataFrame) -> dict[bool, str]:
    so_far = " so far" if plans.unfinished(plan, results) else ""
    return {True: f"met{so_far}", False: f"not met{so_far}"}


# ------------------------------------------------------------------------------------------------ the plan


def _planned(plan: Plan) -> list[str]:
    """The plan as a list."""
    d, s = plan.data, plan.subsets
    names = ", ".join(generators.label(name) for name in plan.generators)
    chosen = ", ".join(paper.SELECTION_NAMES[name] for name in plan.selections)
    lines = [
        ("Question", inert(plan.question)),
        ("Data", f"{inert(d.name)}: {d.train:,} patches to train, {d.valid:,} to validate, {d.test:,} to test."),
        (
            "Scale",
            f"{s.count} subsets of {s.size:,} real patches; profile {inert(plan.profile, 'code')}, seed {plan.seed}.",
        ),
        ("Generators", f"{inert(names)}. Selections: {inert(chosen)}."),
        *((frame.DEVICES[name].capitalize(), _device(plan, device)) for name, device in _devices(plan).items()),
        ("Headline", "\n".join(["", *(f"  - {inert(text)}" for text in plan.headline)])),
        ("Claims", _sentence(plan.claims)),
        ("Curves", _sentence(plan.curves)),
        (
            "End",
            f"{_sentence(plan.stopping.rule)[:-1]}; if that cannot be, {inert(plan.stopping.fallback)}."
            f" {inert(plan.stopping.unseen)}",
        ),
        ("This would convince us that generated patches help", inert(plan.would_change_our_mind.in_favour)),
        ("This would convince us that they do not", inert(plan.would_change_our_mind.against)),
        ("Later, and reported apart", "\n".join(["", *(f"  - {inert(text)}" for text in plan.later)])),
        ("Known before", inert(plan.known_before)),
    ]
    return [f"- **{title}.** {text}" for title, text in lines]


def _devices(plan: Plan) -> dict[str, Measured]:
    return {"probe": plan.devices.probe, "classification": plan.devices.fine_tuned}


def _device(plan: Plan, device: Measured) -> str:
    """What a device measures, and how narrow its intervals are expected to be."""
    where = "every subset" if len(device.subsets) == plan.subsets.count else f"subsets {_numbers(device.subsets)}"
    titles = {arm.name: arm.title for arm in classifiers(plan.generators)}
    rest = f"; in the others only: {'; '.join(titles[name] for name in device.also)}" if device.also else ""
    width = (
        ""
        if device.half_interval is None
        else f" Half of a 95 % interval: {device.half_interval:g} points of AUC expected."
    )
    seeds = f"{device.seeds} seed{'s' * (device.seeds != 1)}"
    return f"{inert(f'All arms in {where}, {seeds} each{rest}.')}{width} {inert(device.reason)}"


def _sentence(text: str) -> str:
    """A text of the plan with a capital letter and a full stop."""
    return f"{inert(text[0].upper() + text[1:].rstrip('.'))}."


def _numbers(values: list[int]) -> str:
    return " and ".join(filter(None, [", ".join(map(str, values[:-1])), str(values[-1])]))


def _fenced(text: str) -> list[str]:
    fence = "`" * (1 + max([2, *map(len, re.findall("`+", text))]))
    return [f"{fence}yaml", *text.splitlines(), fence]
