"""Settings of the generators tried side by side, judged on the validation split: how a profile's values were chosen.

    pcamlib tune PLAN --data DIR [--runs-dir DIR] [--only GENERATOR] [--out FILE]

A plan (YAML) names a base profile, how many samples to judge, and trials: a generator, what to change in its section of
the profile, and ways to sample from it. Each trial trains on subset 0 in a run
folder of its own, from the base's autoencoder; a trial that was cut goes on. The score is the Fréchet distance of the
samples to all validation patches in the space of the base's judge: the test split is not opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pcamlib import metrics
from pcamlib.core.errors import StudyError
from pcamlib.core.files import atomic, atomic_folder, digest, lock, read_json, resolve, write_json
from pcamlib.data import Arrays
from pcamlib.experiments import features, quality
from pcamlib.models import autoencoder, generators
from pcamlib.study import Study, open_study


class Sampling(BaseModel):
    """Options of sampling, of which a generator takes its `generators.Entry.options`; what is not given is the
    profile's."""

    model_config = ConfigDict(extra="forbid")
    sampler: Literal["ddpm", "dpm-solver++"] | None = None
    steps: Annotated[int, Field(ge=1)] | None = None
    guidance: Annotated[float, Field(ge=0)] | None = None

    @property
    def given(self) -> dict[str, Any]:
        return self.model_dump(exclude_none=True)


class Trial(BaseModel):
    """A generator, what differs from the base profile in its section, and the ways to sample from it."""

    model_config = ConfigDict(extra="forbid")
    family: str
    changes: dict[str, Any] = {}
    sampling: list[Sampling] = [Sampling()]

    @field_validator("family")
    @classmethod
    def _is_registered(cls, family: str) -> str:
        if family not in generators.REGISTRY:
            raise ValueError(f"family is one of {', '.join(generators.REGISTRY)}")
        return family

    @model_validator(mode="after")
    def _samples_in_its_own_ways(self) -> Trial:
        options = generators.REGISTRY[self.family].options
        for name in (name for way in self.sampling for name in way.given if name not in options):
            known = f"its options of sampling are {', '.join(options)}" if options else "it has no options of sampling"
            raise ValueError(f"{self.family} does not take {name}: {known}")
        return self


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


class Trials:
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
        section = generators.REGISTRY[trial.family].section
        if trial.family not in self.base.profile.generator_names:
            content["generators"] = [trial.family]
        content["name"] = f"{self.base.profile.name}-{trial.family}-{digest(trial.changes)[:8]}"
        for key, value in trial.changes.items():
            old = content[section].get(key)
            content[section][key] = old | value if isinstance(old, dict) else value
        path = self.base.root / "tuning" / f"{content['name']}.yml"
        with atomic(path) as tmp_path:
            tmp_path.write_text(yaml.safe_dump(content), encoding="utf-8")
        made = open_study(data_root=self.data, runs_dir=self.runs, profile=str(path), subset=0)
        if not (made.folder / "autoencoder").exists():
            with atomic_folder(made.folder / "autoencoder") as tmp_path:
                shutil.copytree(self.base.folder / "autoencoder", tmp_path, dirs_exist_ok=True)
        return made

    def score(self, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
        """Fréchet and kernel distance of (N,) patches to the validation split; the judge's AUC for their labels."""
        auc = metrics.classification_metrics(labels, self.judge.predict(images))["auc"]
        return quality.distances(self.real, self.judge.extractor(images)) | {"label_auc": auc}

    def limits(self) -> list[dict[str, Any]]:
        """What no generator can be expected to pass: the subset's own patches, and their reconstructions."""
        real = Arrays(*(part[: self.plan.samples] for part in self.base.real))
        again = autoencoder.reconstruct(self.decoder, real.images)
        return [{"family": "real"} | self.score(*real), {"family": "autoencoder"} | self.score(again, real.labels)]

    def run(self, trial: Trial) -> list[dict[str, Any]]:
        """Train and judge one trial, a row per way of sampling; the scores are kept in its run folder."""
        s, labels = self.study(trial), np.arange(self.plan.samples) % 2
        generator = generators.find(s, trial.family)
        log, draw = generator.train(s), generator.sampler(s)
        trained = {key: log[-1][key] for key in ("images", "seconds", "version")}
        path = s.results / "tuning.json"
        scores = read_json(path)["scores"] if path.exists() else {}
        rows = []
        for way in trial.sampling:
            row = {"family": trial.family, "changes": trial.changes, "sampling": way.given, "samples": len(labels)}
            key = digest(row)
            if key not in scores:
                scores[key] = self.score(draw(labels, s.seed, **way.given), labels)
                s.write_result("tuning", {"scores": scores}, extractor=self.judge.extractor.name)
            rows.append(row | trained | scores[key])
        return rows


def changed(row: dict[str, Any]) -> str:
    """What a row of `Trials.run` differs in from the base profile, in words."""
    changes = row.get("changes", {}) | row.get("sampling", {})
    for key in [key for key, value in changes.items() if isinstance(value, dict)]:
        changes |= changes.pop(key)
    return ", ".join(f"{key} {value}" for key, value in changes.items()).replace("_", " ") or "–"


def tune(
    path: Path, data: str, runs: str, *, only: str | None, out: Path | None, say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Run the trials of the plan file `path` (of the one generator `only`); returns their rows, each `say`'s line as
    well.

    data, runs
        As `data_root` and `runs_dir` of `open_study`.
    out
        JSON file for the rows with their provenance.

    Raises StudyError for a bad plan, and for what `open_study` refuses.
    """
    plan = read_plan(path)
    trials = Trials(plan, data, runs)
    rows = trials.limits()
    for row in rows:
        say(_line(row))
    for trial in plan.trials:
        if only in (None, trial.family):
            found = trials.run(trial)
            rows += found
            for row in found:
                say(_line(row))
    if out:
        judge = trials.judge.extractor
        about = {"judge": judge.about, "n_valid": len(trials.real), "rows": rows}
        write_json(resolve(out), {"provenance": trials.base.provenance(extractor=judge.name)} | about)
    return rows


def _line(row: dict[str, Any]) -> str:
    took = f", {row['seconds']:.0f} s to train" if "seconds" in row else ""
    return (
        f"{row['family']:12}{row['fid']:7.2f}  KID x 1000 {1000 * row['kid']:6.1f}  label AUC {row['label_auc']:.3f}  "
        f"{changed(row)}{took}"
    )
