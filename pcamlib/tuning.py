"""Settings of the generators tried side by side, judged on the validation split: how a profile's values were chosen.

    python -m pcamlib.tuning PLAN --data DIR --runs-dir DIR [--only unet|dit|histogan] [--out FILE]

A plan (YAML) names a base profile, how many samples to judge, and trials: a generator, what to change in its section of
the profile, and (for diffusion) ways to sample from it. Each trial trains on subset 0 in a run
folder of its own, from the base's autoencoder; a trial that was cut goes on. The score is the Fréchet distance of the
samples to all validation patches in the space of the base's judge: the test split is not opened.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
import warnings
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pcamlib import autoencoder, diffusion, features, histogan, metrics, quality
from pcamlib.errors import StudyError
from pcamlib.store import atomic_folder, digest, lock, read_json, resolve, write_json
from pcamlib.study import Study, open_study


class Trial(BaseModel):
    """A generator, what differs from the base profile in its section, and options of `diffusion.Generator.denoise`."""

    model_config = ConfigDict(extra="forbid")
    family: Literal["histogan", "unet", "dit"]
    changes: dict[str, Any] = {}
    sampling: list[dict[str, int | float]] = [{}]


class Plan(BaseModel):
    """A checked plan file; `conclusion` is written when the trials are done."""

    model_config = ConfigDict(extra="forbid")
    base: str
    conclusion: str = ""
    samples: Annotated[int, Field(ge=50)]
    trials: list[Trial]


def read_plan(path: Path) -> Plan:
    """The plan in a YAML file; StudyError, with what is wrong, if it is none."""
    try:
        return Plan.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise StudyError(f"plan {path} cannot be read ({error.strerror}): give a YAML file.") from None
    except (yaml.YAMLError, ValidationError) as error:
        raise StudyError(f"plan {path}: {' '.join(str(error).split())[:300]}.") from None


class Scale:
    """The base study, made ready: its autoencoder, its judge and what the judge sees in the validation patches."""

    def __init__(self, plan: Plan, data: str, runs: str):
        self.plan, self.data, self.runs = plan, data, runs
        self.base = open_study(data_root=data, runs_dir=runs, profile=plan.base, subset=0)
        with lock(self.base.root / ".tuning", wait=True):
            self.decoder, _ = autoencoder.train(self.base)
            autoencoder.encode_subset(self.base, self.decoder)
            self.judge = features.judge(self.base)
        self.real = self.judge.extractor(self.base.split("valid").images)

    def study(self, trial: Trial) -> Study:
        """The trial's own study, which starts with the base's autoencoder and latents."""
        content = self.base.profile.model_dump()
        section = "histogan" if trial.family == "histogan" else "diffusion"
        content["name"] = f"{self.base.profile.name}-{trial.family}-{digest(trial.changes)[:8]}"
        content["subsets"]["count"] = 1
        for key, value in trial.changes.items():
            old = content[section].get(key)
            content[section][key] = old | value if isinstance(old, dict) else value
        path = self.base.root / "tuning" / f"{content['name']}.yml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(yaml.safe_dump(content), encoding="utf-8")
        made = open_study(data_root=self.data, runs_dir=self.runs, profile=str(path), subset=0)
        if not (made.folder / "autoencoder").exists():
            with atomic_folder(made.folder / "autoencoder") as aside:
                shutil.copytree(self.base.folder / "autoencoder", aside, dirs_exist_ok=True)
        return made

    def score(self, images: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Fréchet and kernel distance of (N,) patches to the validation split, and the judge's AUC for their labels."""
        fake = self.judge.extractor(images)
        with warnings.catch_warnings():
            warnings.simplefilter(
                "ignore", UserWarning
            )  # fewer samples than dimensions: the same number for all trials
            fid = metrics.frechet_distance(real=self.real, fake=fake)
        kid, kid_se = metrics.kernel_distance(
            real=self.real, fake=fake, subset_size=min(quality.KID_SIZE, len(fake) // 2)
        )
        auc = metrics.classification_metrics(labels, self.judge.verdict(images))["auc"]
        return {"fid": fid, "kid": kid, "kid_se": kid_se, "label_auc": auc}

    def limits(self) -> list[dict[str, Any]]:
        """What no generator can be expected to pass: as many new real patches, and the autoencoder's reconstructions."""
        real = self.base.real
        n = min(self.plan.samples, len(real.labels))
        rows = [
            {"family": "autoencoder"}
            | self.score(autoencoder.reconstruct(self.decoder, real.images[:n]), real.labels[:n])
        ]
        return [{"family": "real"} | self.score(real.images[:n], real.labels[:n]), *rows]

    def run(self, trial: Trial) -> list[dict[str, Any]]:
        """Train and judge one trial, a row per way of sampling; kept in its run folder."""
        s = self.study(trial)
        path, done = s.results / "tuning.json", []
        if path.exists():
            done = read_json(path)["rows"]
        labels = np.arange(self.plan.samples) % 2
        start = time.monotonic()
        if trial.family == "histogan":
            gan, log = histogan.train(s, folder=s.folder / "histogan")
        else:
            generator, log = diffusion.train(s, trial.family)
        train = round(time.monotonic() - start, 1)
        rows = []
        for way in trial.sampling:
            same = [row for row in done if row["sampling"] == way and row["samples"] == len(labels)]
            if not same:
                start = time.monotonic()
                images = (
                    histogan.sample(gan, labels, s.seed)
                    if trial.family == "histogan"
                    else generator.sample(labels, s.seed, **way)
                )
                took = {
                    "train_seconds": done[0]["train_seconds"] if done else train,
                    "sample_seconds": round(time.monotonic() - start, 1),
                }
                row = {
                    "family": trial.family,
                    "changes": trial.changes,
                    "sampling": way,
                    "samples": len(labels),
                    "images": log[-1]["images"],
                }
                same = [row | self.score(images, labels) | took]
            rows += same
            s.write_result(
                "tuning", {"rows": rows + [row for row in done if row not in rows]}, extractor=self.judge.extractor.name
            )
        return rows


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pcamlib.tuning", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("plan", type=Path, help="a YAML file like book/reference/tuning/plan.yml")
    parser.add_argument("--data", required=True, help="folder of PCam files")
    parser.add_argument("--runs-dir", default="runs")
    parser.add_argument("--only", choices=["unet", "dit", "histogan"], help="the trials of one generator")
    parser.add_argument("--out", type=Path, help="write all rows with their scale here")
    options = parser.parse_args(argv)
    try:
        plan = read_plan(options.plan)
        scale = Scale(plan, options.data, options.runs_dir)
        rows = scale.limits()
        for row in rows:
            print(_line(row), flush=True)
        for trial in plan.trials:
            if options.only in (None, trial.family):
                found = scale.run(trial)
                rows += found
                print("\n".join(map(_line, found)), flush=True)
        if options.out:
            judged = {"judge": scale.judge.extractor.about, "n_valid": len(scale.real), "rows": rows}
            write_json(resolve(options.out), {"scale": scale.base.scale(extractor=scale.judge.extractor.name)} | judged)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _line(row: dict[str, Any]) -> str:
    what = (
        ", ".join(f"{k} {v}" for k, v in (row.get("changes", {}) | row.get("sampling", {})).items())
        or "as in the profile"
    )
    took = f", {row['train_seconds']:.0f} s to train" if "train_seconds" in row else ""
    return f"{row['family']:12}{row['fid']:7.2f}  KID x 1000 {1000 * row['kid']:6.1f}  label AUC {row['label_auc']:.3f}  {what}{took}"


if __name__ == "__main__":
    sys.exit(main())
