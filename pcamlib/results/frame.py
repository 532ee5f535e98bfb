"""Results of a study as one tidy data frame, and the means and differences that everything else is made from.

One line per subset, arm, classifier seed, feature space and metric. Metrics are fractions, except the Fréchet
distance, KID and density, the training loss, seconds, and counts. `COLUMNS` lists the columns with their types.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from pcamlib.core.errors import StudyError, system_advice
from pcamlib.core.files import atomic
from pcamlib.core.settings import Profile, load_profile, profile_names
from pcamlib.data import CLASSES, SIDE
from pcamlib.results.arms import NO_NETWORK, Arm

NOT_RUN = "not run"
CALIBRATION_BINS = 15
"""Of the calibration error ("ece"): equally wide bins of confidence, Guo et al. 2017, arXiv 1706.04599."""

PER_CLASS = ("requested", "kept", "seen", "passed", "accepted")
LATER = ("fid_0", "fid_1", "fid_held_out", "fid_infinity", "vendi")
"""Metrics of quality that older results lack, and a row where there are too few images. Such a row has no line for
them."""
HALF = SIDE // 2  # px, for `experiments.label_content`
LABEL_CONTENT = {
    "colour": "auc_colour", "half": "auc_half", "full": "auc_full",
    "apart_half": "auc_apart_half", "apart_full": "auc_apart_full",
}  # fmt: skip
"""Metrics of `experiments.label_content.evaluate` by their name in its rows."""
KNOWN_LABELS = {
    "right": "passed_right", "wrong": "passed_wrong", "realism": "passed_realism", "kept_right": "kept_right"
}  # fmt: skip
"""Those of `label_content.known_labels`: of both classes; with _0 and _1 behind, of patches of one class."""
BY_CENTRE = ("auc_centre", "patches_centre")
"""Of an arm's test patches from one centre, which the line names: their AUC and number."""
METRICS = {
    "training": ("images",),
    "selection": tuple(f"{name}_{c}" for name in PER_CLASS for c in (0, 1)),
    "quality": ("fid", "precision", "recall", "f1", "label_auc", "kid", "kid_se", "density", "coverage", *LATER),
    "memorisation": (
        "nearer_train", "nearer_train_expected", "nearer_train_p", "closer_than_new", "closer_than_new_p",
        "least_ratio",
    ),
    "classification": (
        "accuracy", "auc", "sensitivity", "specificity", "ece", "valid_auc", "train_loss", "train_seconds",
    ),
    "probe": (
        "accuracy", "auc", "sensitivity", "specificity", "ece", "valid_auc", "train_loss", "train_seconds",
    ),
    "label-content": tuple(LABEL_CONTENT.values()),
    "curves": ("auc_curve",),
    "known-labels": tuple(f"{name}{of}" for name in KNOWN_LABELS.values() for of in ("_0", "_1", "")),
}  # fmt: skip
"""The metrics by kind of line. Those of a selection are per class; `accepted` is passed / seen, without selection
absent."""
OPTIONAL = {
    *LATER, "auc_apart_half", "auc_apart_full", "kept_right", "kept_right_0", "kept_right_1", "accepted_0", "accepted_1"
}  # fmt: skip
"""Metrics that a row may be without."""
DEVICES = {"classification": "fine-tuned network", "probe": "linear probe"}
"""The two measuring devices by the kind of their lines: every arm is trained and tested by each."""
ROW = {
    "n_real": "Int64", "n_synthetic": "Int64", "n_fake": "Int64", "n_train": "Int64", "n_new": "Int64",
    "test_n": "Int64", "k": "Int64", "dims": "Int64", "kid_size": "Int64", "epochs": "Int64", "steps": "Int64",
    "chosen_epoch": "Int64", "threshold": "float64", "pretrained": "str", "model_choice": "str",
}  # fmt: skip
PROVENANCE = {
    "data": "str", "data_sha": "str", "phantom": "boolean", "profile": "str", "profile_sha": "str", "device": "str",
    "threads": "Int64", "precision": "str", "seconds": "float64", "version": "str", "torch": "str", "created": "str",
}  # fmt: skip
COLUMNS = {
    "kind": "str", "subset": "int64", "arm": "str", "regime": "str", "generator": "str", "selection": "str",
    "control": "bool", "seed": "int64", "extractor": "str", "centre": "str", "metric": "str", "value": "float64",
    "status": "str",
    "reason": "str", **ROW, "arm_version": "str", "arm_created": "str", "judge": "str", **PROVENANCE,
    "processor": "str", "subsets_by": "str", "class_0": "str", "class_1": "str", "subset_size": "Int64",
    "study_seed": "Int64", "file": "str",
}  # fmt: skip
"""Name and type of every column.

kind: "training", "selection", "quality", "memorisation", "classification", "probe", "label-content", "known-labels" or
"curves" (see `results.curves`). centre: of a line of `BY_CENTRE`. arm: `Arm.name`, made of regime (the kind where no
classifier is trained), generator and selection. status: "ok", or "not run" with its reason and without a value. n_real
to model_choice: counts and settings of the arm. arm_version, arm_created: of a classifier, where its file holds
several. The rest is the provenance of the result file; `subset_size` is its count of real patches, and `seconds` are
those of the whole file. `processor` and `subsets_by` ("patch" or "slide") are missing in results made before they were
recorded.
"""


def tidy(lines: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """A data frame with the columns and types of `COLUMNS`; what a line lacks is missing."""
    return pd.DataFrame(list(lines), columns=list(COLUMNS)).astype(COLUMNS)


def write(results: pd.DataFrame, path: str | Path) -> None:
    """Write results as CSV, atomically. `read` gives back an equal frame: floats are written with all their digits."""
    with atomic(path) as tmp_path:
        results.to_csv(tmp_path, index=False, lineterminator="\n")


def read(path: str | Path) -> pd.DataFrame:
    """Results from a CSV file that `write` made; StudyError if it is not one."""
    try:
        found = pd.read_csv(path, dtype=COLUMNS, keep_default_na=False, na_values=[""])
    except (OSError, ValueError) as error:  # parser errors are ValueErrors
        if advice := system_advice(error):
            raise StudyError(f"{path} cannot be read ({advice}).") from None
        raise StudyError(f"{path} cannot be read as results ({error}): run notebook 08 again, or restore it.") from None
    if list(found) != list(COLUMNS):
        raise StudyError(f"{path} does not have the columns of results: run notebook 08 again, or restore it.")
    return found


# ------------------------------------------------------------------------------------------------ summaries


def of_kind(results: pd.DataFrame, kind: str, extractor: str | None = None) -> pd.DataFrame:
    """The lines of one kind that have a value, of one feature space if it is given."""
    found = results[(results["kind"] == kind) & (results["status"] == "ok")]
    return found if extractor is None else found[found["extractor"] == extractor]


def by_device(results: pd.DataFrame, device: str) -> pd.DataFrame:
    """The results as one of `DEVICES` measured them: without the lines of the other.

    For "probe" its lines take the kind "classification", so everything that is made from results can be made from
    either. The regressions of `NO_NETWORK` are kept with both.
    """
    if device not in DEVICES:
        raise ValueError(f"device must be one of {', '.join(DEVICES)}, got {device!r}.")
    if device == "classification":
        return results[results["kind"] != "probe"]
    found = results[(results["kind"] != "classification") | results["regime"].isin(NO_NETWORK)]
    return found.assign(kind=found["kind"].replace("probe", "classification").astype("str"))


def fullest(results: pd.DataFrame) -> str:
    """The one of `DEVICES` that measured most arms, over all subsets; the fine-tuned network if they are even."""
    ran = results[(results["metric"] == "auc") & (results["status"] == "ok")]
    return max(DEVICES, key=lambda device: int((ran["kind"] == device).sum()))


def is_probe(results: pd.DataFrame) -> bool:
    """Whether these are results of `by_device` as the probes measured them."""
    return bool((results["kind"].eq("classification") & results["file"].str.contains("/probe-")).any())


def has_probe(results: pd.DataFrame) -> bool:
    """Whether any arm was measured by a probe."""
    return bool((results["kind"].eq("probe") & results["status"].eq("ok")).any())


def profile_of(results: pd.DataFrame) -> Profile | None:
    """The package's profile that a run was made with; None if that profile has been changed since, or was another."""
    name = merged_provenance(results)["profile"]
    profile = load_profile(name) if name in profile_names() else None
    return profile if profile and set(results["profile_sha"].dropna()) == {profile.sha} else None


def extractors(results: pd.DataFrame) -> list[str]:
    """Names of the feature spaces in which quality was judged, in order of appearance."""
    return list(results.loc[results["kind"] == "quality", "extractor"].dropna().unique())


def arm_of(line: Any) -> Arm:
    """The arm of a line of results, as `itertuples` or `iterrows` give it, with its seed."""
    generator, selection = (None if pd.isna(name) else name for name in (line.generator, line.selection))
    return Arm(line.regime, generator, selection, line.seed)


def by_subset(results: pd.DataFrame, metric: str, extractor: str | None = None) -> pd.DataFrame:
    """Values of a metric, subsets by arms (named by `Arm.name`), averaged over classifier seeds; NaN where not run.

    Lines of kind "probe" are another device's and do not count: see `by_device`. Raises ValueError if values of several
    feature spaces would be averaged: give the extractor.
    """
    found = results[(results["metric"] == metric) & (results["status"] == "ok") & (results["kind"] != "probe")]
    if extractor is not None:
        found = found[found["extractor"] == extractor]
    if found["extractor"].nunique() > 1:
        raise ValueError(f"{metric} was measured in several feature spaces: give the extractor.")
    return found.groupby(["subset", "arm"])["value"].mean().unstack()


def summary(results: pd.DataFrame, metric: str, extractor: str | None = None) -> pd.DataFrame:
    """By arm: mean and sample standard deviation (n - 1) over subsets, and their number n; sd is NaN for one subset."""
    found = by_subset(results, metric, extractor)
    return pd.DataFrame({"mean": found.mean(), "sd": found.std(), "n": found.count()})


def differences(results: pd.DataFrame, against: Arm, metric: str = "auc", extractor: str | None = None) -> pd.DataFrame:
    """Every arm minus `against`, paired by subset: subsets by arms, NaN where one of the two was not run."""
    found = by_subset(results, metric, extractor)
    if against.name not in found:
        return found.iloc[:, :0]
    return found.sub(found[against.name], axis=0).drop(columns=against.name).dropna(axis=1, how="all")


# ------------------------------------------------------------------------------------------------ provenance


MIXABLE = {
    "version": "versions of the code",
    "threads": "thread counts",
    "device": "devices",
    "processor": "processors",
}
"""What may differ between the result files of a run by accident, and what several are called. Each changes digits."""


def merged_provenance(results: pd.DataFrame) -> dict[str, Any]:
    """The provenance of all result files as one: lists of what may differ, "subsets", and "seconds" of all files."""
    files = results[results["data"].notna()].drop_duplicates("file")
    if files.empty:
        raise StudyError("there are no results to state a provenance for: run notebooks 05 to 07 first.")
    first = files.iloc[0]
    merged = {"data": first["data"], "phantom": bool(first["phantom"]), "classes": [first["class_0"], first["class_1"]]}
    merged |= {"profile": first["profile"], "subsets": sorted(files["subset"].unique().tolist())}
    merged["n_real"] = sorted(files["subset_size"].unique().tolist())
    found = {key: sorted(files[key].dropna().unique().tolist()) for key in (*MIXABLE, "precision")}
    found["version"] = sorted({*found["version"], *results["arm_version"].dropna()})
    merged |= {key: values for key, values in found.items() if values}  # older results do not tell the processor
    return merged | {"seconds": math.fsum(files["seconds"])}  # fsum: the same digits from every Python


def duration(seconds: float) -> str:
    """A span of time as one would say it: "48 s", "12 min 5 s", "3 h 10 min"."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def provenance_note(provenance: Mapping[str, Any]) -> str:
    """One line that says where numbers come from, for captions and figure footnotes.

    Takes the provenance of a result file or that of `merged_provenance`.
    """

    def several(key: str) -> str:
        value = provenance[key]
        return " and ".join(map(str, value)) if isinstance(value, list) else str(value)

    data = f"{provenance['data']} (procedural stand-in, no tissue)" if provenance["phantom"] else provenance["data"]
    classes = tuple(provenance["classes"])
    if classes != CLASSES:  # figures and tables speak of PCam's classes
        data += f' ("{CLASSES[0]}" is {classes[0]}, "{CLASSES[1]}" is {classes[1]})'
    count = len(provenance.get("subsets", ()))
    subsets = f"{count} subset{'s' * (count != 1)}" if count else f"subset {provenance['subset']}"
    return (
        f"Data: {data}; profile {provenance['profile']}; {subsets} of {several('n_real')} patches; "
        f"{several('device')}, {several('precision')}; {duration(provenance['seconds'])}; "
        f"pcamlib {several('version')}.{mixture(provenance)}"
    )


def mixture(provenance: Mapping[str, Any]) -> str:
    """A sentence if the numbers were not all made in the same way."""
    several = []
    for key, what in MIXABLE.items():
        values = provenance.get(key, [])
        texts = map(str, values if isinstance(values, list) else [values])
        # a model that was trained on after a change of the code has versions joined by "and"
        count = len({part for text in texts for part in text.split(" and ")}) if key == "version" else len(set(texts))
        several += [f"{count} {what}"] if count > 1 else []
    return f" Mixed: {', '.join(several)}." if several else ""
