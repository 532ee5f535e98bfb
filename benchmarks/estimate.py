"""How long the whole study takes on this device, and in how much memory, from a few timed steps of every stage.

    pcamlib estimate [--profile paper] [--data DIR] [--acceptance 0.5] [--price-per-hour P] [--publish]

Prints hours and memory per stage of the Snakefile, and the least hours that 1, 4 and 16 workers need (a worker runs one
notebook at a time, on a device like this one). Writes all of it as JSON to runs/estimate-<profile>-<device>.json.
`--publish` keeps it in book/reference/estimates/ instead and puts the table into book/running.md.
"""

from __future__ import annotations

import json
import math
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import timing
import torch

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, code_version, now, project_root, read_json, resolve, write_json
from pcamlib.core.precision import number_format
from pcamlib.core.settings import Profile, load_profile
from pcamlib.experiments import classification
from pcamlib.models import generators, pooled
from pcamlib.study import REAL, SELECTIONS

WORKERS = (1, 4, 16)
PATCH = 96 * 96 * 3  # bytes
START, END = "<!-- estimates: written by pcamlib estimate --publish -->", "<!-- end of estimates -->"


class Stage(NamedTuple):
    """One notebook run: its rule in the Snakefile, seconds on one worker, and peak memory in bytes."""

    rule: str
    seconds: float
    bytes: float


class Sizes(NamedTuple):
    """Patches: of a subset, of the validation and test splits, and of the pool outside every subset and the judge."""

    subset: int
    valid: int
    test: int
    pool: int = 0


def sizes(p: Profile, root: str | None) -> Sizes:
    """Sizes of the data set in `root`, or of the profile's phantom (for `paper` these are PCam's)."""
    train, valid, test = (
        (len(data.labels(resolve(root), split)) for split in ("train", "valid", "test"))
        if root
        else (p.phantom.train, p.phantom.valid, p.phantom.test)
    )
    n = p.subsets.size or math.ceil(p.subsets.fraction * train)
    if p.subsets.count * n > train:
        raise StudyError(f"{p.subsets.count} subsets of {n} patches do not fit into the {train} of the train split.")
    reserve, judge = train - p.subsets.count * n, p.quality.judge.size
    pool = reserve - judge if reserve >= judge else reserve
    if not pool and pooled.NAME in p.generator_names:
        raise StudyError(f"no train patches are left for {pooled.NAME}: choose fewer or smaller subsets.")
    return Sizes(n, valid, test, pool)


def families(p: Profile) -> list[str]:
    """The families that a profile's study needs; StudyError for a generator that nobody has told `timing` how to
    time."""
    made = [name for name, entry in generators.listed(p).items() if entry.section]
    for name in made:
        if name not in timing.FAMILIES:
            raise StudyError(f"benchmarks/timing.py cannot time generator {name!r}: add it to its GENERATORS.")
    return [name for name in timing.FAMILIES if name not in timing.GENERATORS or name in made]


def stages(p: Profile, s: Sizes, cost: dict[str, dict[str, Any]], acceptance: float) -> dict[str, Stage]:
    """Every node of the study by name, for all subsets of the profile.

    cost: what `timing.measure` returned for every family. acceptance: the share of candidates that pass the stricter
    selection; a generator makes subset / acceptance candidates, and at most the profile's cap.
    """
    n = s.subset
    candidates = n * min(1 / acceptance, p.selection.candidates)

    def training_of(family: str, images: int, epochs: int, batch: int) -> float:
        return epochs * (images // min(batch, images)) * cost[family]["step"]

    def memory(family: str, patches: float) -> float:
        return cost[family]["bytes"] + patches * PATCH * (not torch.cuda.is_available())

    def neighbours(count: int) -> float:  # every pair of rows
        return cost["metrics"]["neighbours"] * (count / cost["metrics"]["rows"]) ** 2

    def classifiers(generator: str, subset: int) -> float:
        total = 0.0
        for arm in classification.runs(generator, p.classifier):
            images = n * (2 if arm.regime in ("augmentation", "double-real") else 1)
            epochs = p.classifier.epochs * (2 if arm.regime == "traditional-2x" else 1)
            family = "classifier-plain" if arm.regime == "baseline" else "classifier"
            total += training_of(family, images, epochs, p.classifier.batch_size)
            scored = s.valid * (epochs + 1 if p.classifier.model_choice == "best-valid-auc" else 1) + s.test
            total += scored * cost["classifier"]["image"]
        return total

    listed = generators.listed(p)

    def sampling(generator: str) -> float:
        if listed[generator].section is None:  # images made elsewhere
            return load
        if generator == "histogan":
            return cost["histogan"]["image"]
        return p.diffusion.sampling_steps * cost[generator]["denoise"] + cost["autoencoder"]["decode"]

    judged = cost["features"]["judge"]  # for the space, the verdict, or both
    per_image = (cost["features"]["inception"] if p.quality.inception else 0) + cost["features"]["vgg16"] + judged
    sets = len(listed) * len(SELECTIONS) + 2
    distance = cost["metrics"]["distance"] * max(1, n / cost["metrics"]["rows"])
    quality = (sets + 1) * n * per_image + sets * 2 * (neighbours(n) + distance)
    quality += n * (cost["autoencoder"]["encode"] + cost["autoencoder"]["decode"])
    quality += (p.quality.judge.size + s.valid) * judged
    load = cost["data"]["load"]
    held = memory("classifier", 2 * n + s.valid + s.test)

    found = {}
    for k in range(p.subsets.count):
        found[f"dataset {k}"] = Stage("dataset", n * load, memory("data", n))
        encode = n * p.orientations * cost["autoencoder"]["encode"]
        a, g, d = p.autoencoder, p.histogan, p.diffusion
        found[f"autoencoder {k}"] = Stage(
            "autoencoder", training_of("autoencoder", n, a.epochs, a.batch_size) + encode, memory("autoencoder", n)
        )
        for b in (name for name in timing.BACKBONES if name in listed):
            seconds = training_of(b, n, d.epochs, d.batch_size)
            found[f"diffusion {k} {b}"] = Stage("diffusion", seconds, memory(b, n))
        if "histogan" in listed:
            seconds = training_of("histogan", n, g.epochs, g.batch_size)
            found[f"histogan {k}"] = Stage("histogan", seconds, memory("histogan", n))
        found[f"classification {k} real"] = Stage(
            "classification_real", classifiers(REAL, k) + (3 * n + s.valid + s.test) * load, held
        )
        for name, entry in listed.items():
            seconds = candidates * (sampling(name) + cost["classifier"]["image"])
            seconds += neighbours(n) * candidates / n + n * load
            if entry.section and entry.after == "02_autoencoder":  # no notebook of its own: the selection trains it
                seconds += training_of(name, n, d.epochs, d.batch_size)
            held_here = 2 * n
            if name == pooled.NAME:  # the first selection trains the pool's stages too
                seconds += encode + training_of(name, n, d.epochs, d.batch_size)
                if k == 0:
                    assert p.pool is not None
                    seconds += training_of("autoencoder", s.pool, p.pool.autoencoder_epochs, a.batch_size)
                    seconds += training_of(name, s.pool, p.pool.epochs, d.batch_size)
                    seconds += s.pool * (p.orientations * cost["autoencoder"]["encode"] + load)
                    held_here += s.pool
            found[f"selection {k} {name}"] = Stage(
                "selection", seconds, memory(name if entry.section else "classifier", held_here)
            )
            seconds = classifiers(name, k) + (9 * n + s.valid + s.test) * load
            found[f"classification {k} {name}"] = Stage("classification", seconds, held)
        found[f"quality {k}"] = Stage(
            "quality",
            quality + (sets + 1 + p.quality.judge.size / n) * n * load,
            memory("features", 2 * n),
        )
    return found


def chain_seconds(stages: dict[str, Stage], subsets: int, alone: Sequence[str] = ()) -> float:
    """Seconds of the longest chain of notebooks that wait for one another: no number of workers is faster.

    A selection waits for its generator, or for the autoencoder if it trains the generator itself, and for the real-only
    classifiers; quality waits for every selection. `alone` are generators that wait for neither.
    """

    def seconds(name: str) -> float:
        return stages[name].seconds

    names = [name.removeprefix("selection 0 ") for name in stages if name.startswith("selection 0 ")]
    chains = []
    for k in range(subsets):
        selected = {}
        for name in names:
            diffusion, own = f"diffusion {k} {name}", f"{name} {k}"
            trained = 0.0 if own in stages or name in alone else seconds(f"autoencoder {k}")
            trained += sum(seconds(stage) for stage in (diffusion, own) if stage in stages)
            ready = max(trained, seconds(f"classification {k} real"))
            selected[name] = ready + seconds(f"selection {k} {name}")
        chains += [selected[name] + seconds(f"classification {k} {name}") for name in names]
        chains.append(max(selected.values()) + seconds(f"quality {k}"))
    return max(chains)


def time_family(family: str, profile: str, seconds: float, *options: str) -> dict[str, Any]:
    """`timing.measure` in a process of its own; StudyError with its last line if it fails (out of memory, say)."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("timing.py")),
        family,
        profile,
        "--seconds",
        str(seconds),
        *options,
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(_package())})
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}, killed for memory perhaps"])[-1]
        raise StudyError(f"timing {family} of profile {profile} failed: {reason}")
    return json.loads(done.stdout.splitlines()[-1])


def _package() -> Path:
    return Path(__file__).resolve().parents[1]


def estimate(profile: str, root: str | None, acceptance: float, price: float | None, seconds: float) -> dict[str, Any]:
    """Time every family and add up; the result is what is written as JSON (seconds, bytes)."""
    p = load_profile(profile)
    s = sizes(p, root)
    started = time.monotonic()
    torch.set_num_threads(p.threads)
    rates = {
        name: timing.matrix_rate(dtype) for name, dtype in RATES.items() if name in ("fp32", number_format("auto"))
    }
    cost = {}
    for family in families(p):
        print(f"timing {family} …", file=sys.stderr, flush=True)
        cost[family] = time_family(family, profile, seconds)
    nodes = stages(p, s, cost, acceptance)
    alone = [name for name, entry in generators.listed(p).items() if entry.after is None]
    rules = dict.fromkeys(stage.rule for stage in nodes.values())
    of = {rule: [stage for stage in nodes.values() if stage.rule == rule] for rule in rules}
    total, chain = sum(stage.seconds for stage in nodes.values()), chain_seconds(nodes, p.subsets.count, alone)
    return {
        "provenance": {
            "profile": p.name,
            "profile_sha": p.sha,
            "data": root and resolve(root).name,
            "sizes": s._asdict(),
            "subsets": p.subsets.count,
            "acceptance": acceptance,
            "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
            "threads": p.threads,
            "version": code_version(),
            "torch": torch.__version__,
            "seconds": round(time.monotonic() - started, 1),
            "created": now(),
        },
        "matrix_rate": rates,
        "cost": cost,
        "stages": {
            rule: {"runs": len(x), "seconds": sum(y.seconds for y in x), "bytes": max(y.bytes for y in x)}
            for rule, x in of.items()
        },
        "total_seconds": total,
        "chain_seconds": chain,
        "least_wall_seconds": {str(w): max(total / w, chain) for w in WORKERS},
        "total_seconds_by_acceptance": {
            "1": sum(x.seconds for x in stages(p, s, cost, 1).values()),
            "cap": sum(x.seconds for x in stages(p, s, cost, 1 / p.selection.candidates).values()),
        },
        "price_per_hour": price,
    }


RATES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def table(found: dict[str, Any]) -> str:
    """The estimate as Markdown: one table of stages, one of workers, and what they rest on."""
    provenance, total = found["provenance"], found["total_seconds"]
    price = found["price_per_hour"]
    rates = ", ".join(f"{name} {rate / 1e9:,.0f} GFLOP/s" for name, rate in found["matrix_rate"].items())
    lines = ["| stage | runs | hours each | hours in all | memory, GB |", "| --- | ---: | ---: | ---: | ---: |"]
    for rule, row in found["stages"].items():
        each = hours(row["seconds"] / row["runs"])
        lines.append(f"| `{rule}` | {row['runs']} | {each} | {hours(row['seconds'])} | {row['bytes'] / 1e9:.1f} |")
    most = max(row["bytes"] for row in found["stages"].values())
    lines += [f"| all | {sum(r['runs'] for r in found['stages'].values())} | | {hours(total)} | {most / 1e9:.1f} |", ""]
    lines += ["| workers | hours, at least | days, at least |" + " cost, at least |" * bool(price)]
    lines += ["| ---: | ---: | ---: |" + " ---: |" * bool(price)]
    for workers, wall in found["least_wall_seconds"].items():
        paid = f" {price * wall / 3600 * int(workers):,.0f} |" if price else ""
        lines.append(f"| {workers} | {hours(wall)} | {wall / 86400:,.1f} |{paid}")
    ends = found["total_seconds_by_acceptance"]
    lines += [
        "",
        f"Profile {provenance['profile']}: {provenance['subsets']} subsets of {provenance['sizes']['subset']:,}"
        f" patches, {provenance['sizes']['test']:,} to test. Device: {provenance['device']}, {provenance['threads']}"
        f" threads; matrix rate {rates}; torch {provenance['torch']}; pcamlib {provenance['version']}; measured in"
        f" {provenance['seconds']:.0f} s on {provenance['created'][:10]}. The longest chain of stages takes"
        f" {hours(found['chain_seconds'])} hours. Selection is counted at an acceptance of"
        f" {provenance['acceptance']:.0%}; if every candidate passed, the total would be {hours(ends['1'])} hours, and"
        f" {hours(ends['cap'])} if every generator ran to its cap. Not counted: starting notebooks, drawing figures,"
        " reading results, checkpoints."
        + f" Memory is {'of the device' if provenance['device'] != 'cpu' else 'of the process, with its patches'}.",
    ]
    return "\n".join(lines)


def hours(seconds: float) -> str:
    """Seconds as hours with two or three digits that mean something."""
    value = seconds / 3600
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}" if value < 1 else f"{value:.1f}"


def into(page: str, tables: list[dict[str, Any]]) -> str:
    """The text of a page with all kept estimates between its marks; StudyError if the marks are not there."""
    if page.count(START) != 1 or page.count(END) != 1:
        raise StudyError(f"book/running.md must have one line '{START}' and one line '{END}'.")
    before, rest = page.split(START)
    shown = "\n\n".join(map(table, tables)) or "No estimate is kept here yet."
    return f"{before}{START}\n\n{shown}\n\n{END}{rest.split(END)[1]}"


def publish(found: dict[str, Any], root: Path) -> Path:
    """Keep an estimate under book/reference/estimates/ of the checkout `root`, and show all of them in
    book/running.md."""
    folder, page = root / "book" / "reference" / "estimates", root / "book" / "running.md"
    path = folder / f"{name(found)}.json"
    write_json(path, found)
    text = into(page.read_text(encoding="utf-8"), [read_json(x) for x in sorted(folder.glob("*.json"))])
    with atomic(page) as tmp_path:
        tmp_path.write_text(text, encoding="utf-8")
    return path


def name(found: dict[str, Any]) -> str:
    """What an estimate's file is called: profile and device."""
    return re.sub(r"[^\w.-]+", "-", f"{found['provenance']['profile']}-{found['provenance']['device']}".lower())


def main(
    profile: str = "paper",
    data: str | None = None,
    acceptance: float = 0.5,
    price_per_hour: float | None = None,
    seconds: float = 10,
    keep: bool = False,
) -> None:
    """Estimate hours and memory of a study on this device and print them; `keep` puts them into the book."""
    if not 0 < acceptance <= 1:
        raise StudyError(f"--acceptance is {acceptance}: give a share above 0 and up to 1.")
    root = None if data in (None, "", "phantom") else data
    found = estimate(profile, root, acceptance, price_per_hour, seconds)
    if keep:
        path = publish(found, project_root())
    else:
        path = resolve("runs") / f"estimate-{name(found)}.json"
        write_json(path, found)
    print(table(found))
    print(path)
