"""Table 1 with the paper beside our run, further measures of image quality, and memorisation."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from pcamlib.core import paper
from pcamlib.data import CLASSES, SIDE
from pcamlib.models import generators
from pcamlib.report.tables import (
    HEADINGS,
    NOT_COMPARABLE,
    NOT_PRINTED,
    Table,
    cells,
    counts,
    line,
    listed,
    provenance_sentence,
)  # fmt: skip
from pcamlib.results import frame
from pcamlib.results.arms import PLANTED, Arm, generators_of, judged
from pcamlib.results.frame import HALF, LATER, NOT_RUN

CALIBRATION = {
    "real": "Other real patches",
    "autoencoder": "VAE reconstructions",
}
TOO_FEW = {
    "fid_infinity": "not run: fewer images than dimensions",
    "fid_held_out": "not run: too few validation patches",
    "vendi": "not run: an image has features of zero only",
}
"""Why a set that was judged lacks a metric."""
MEMORISATION_CONTROLS = {
    "real": "Validation patches (nothing is copied)",
    "autoencoder": "Reconstructions of training patches (everything is)",
    **{name: f"Validation patches with {name.split('-')[1]} % planted copies" for name in PLANTED},
}


def _rows(sets: Sequence[tuple[str, str | None]], section: str, controls: dict[str, str]) -> pd.MultiIndex:
    """Section and name of every image set, in Table 1's order; then those of the two controls."""
    return pd.MultiIndex.from_tuples(
        (section, controls[g]) if s is None else (paper.SELECTION_HEADINGS[s], generators.label(g)) for g, s in sets
    )


def table_1(results: pd.DataFrame, extractor: str) -> Table:
    """Table 1 in the paper's order, and the calibration rows, in one feature space.

    One table per extractor: distances and shares of two feature spaces must never meet in a column.
    """
    sets = judged(generators_of(results))
    quality, arms = frame.of_kind(results, "quality", extractor), [Arm("quality", *images) for images in sets]
    count = counts(quality, "n_fake")
    columns = {"Images judged": [count.get(arm.name, NOT_RUN) for arm in arms]}
    columns |= {HEADINGS[m]: cells(results, m, arms, extractor) for m in ("fid", "precision", "recall", "f1")}
    few = ""
    if (quality["n_fake"] <= quality["dims"]).any():
        few = "No more images than feature dimensions: the distance is biased upwards, compare within this table only. "
    notes = (
        f"Mean ± standard deviation over subsets. {_space(results, 'quality', extractor)}; the distance is FID proper"
        f" in Inception-V3's space only. {_conventions(quality)} {few}{provenance_sentence(results, 'quality')} The"
        f" paper's Table 1 is {NOT_COMPARABLE}: compare the order of the rows."
    )
    data = pd.DataFrame(columns, index=_rows(sets, "Calibration (ours)", CALIBRATION))
    return Table(f"Table 1. Image quality, judged by {extractor}", data, notes, line(results, "quality"))


def paper_table_1() -> Table:
    """Table 1 as the paper prints it."""
    sets = [(row.generator, row.selection) for row in paper.TABLE_1]
    columns = {
        HEADINGS[m]: [getattr(r, m).printed for r in paper.TABLE_1] for m in ("fid", "precision", "recall", "f1")
    }
    notes = (
        "Full PCam, five subsets of 26,215 patches; ImageNet-pretrained Inception-V3 for FID, an unstated extractor for"
        " precision and recall. We read ± as the standard deviation over subsets."
    )
    data = pd.DataFrame(columns, index=_rows(sets, "", {}))
    return Table("Table 1 of the paper. Image quality", data, notes, "As printed in the paper.")


def table_1_more(results: pd.DataFrame, extractor: str) -> Table:
    """What Table 1 of the paper does not have: KID, density, coverage, diversity and the judge's label AUC."""
    sets = judged(generators_of(results))
    quality, arms = frame.of_kind(results, "quality", extractor), [Arm("quality", *images) for images in sets]
    columns = {HEADINGS[m]: cells(results, m, arms, extractor) for m in ("kid", "density", "coverage", "label_auc")}
    if later := set(quality["metric"]) & {*LATER}:
        columns[HEADINGS["vendi"]] = _later(results, "vendi", arms, extractor)
    errors = quality.loc[quality["metric"] == "kid_se", "value"]
    error = f" (at most {1000 * errors.max():.2f})" if len(errors) else ""
    diverse = (
        "Vendi score: how many different images would be as diverse, and depends on their number. " if later else ""
    )
    notes = (
        f"Mean ± standard deviation over subsets. {_space(results, 'quality', extractor)}. {_conventions(quality)}"
        f" KID: mean over 100 random subsets of {listed(quality['kid_size'], ' or ', 'no')} images; the standard error"
        f" of a single value{error} is that of this mean. Density counts the real spheres around a sample and may"
        f" exceed 1; coverage is the share of real spheres that hold a sample. {diverse}Label AUC: how well the judge,"
        " a classifier of real patches, recognises the class that each image was meant to show (50 is chance)."
        f" {provenance_sentence(results, 'quality')}"
    )
    data = pd.DataFrame(columns, index=_rows(sets, "Calibration (ours)", CALIBRATION))
    return Table(
        f"In addition to Table 1: further measures, judged by {extractor}", data, notes, line(results, "quality")
    )


def table_1_distances(results: pd.DataFrame, extractor: str) -> Table:
    """What Table 1 of the paper does not have: distances by class, to held-out patches and without the bias of few
    images."""
    sets = judged(generators_of(results))
    arms = [Arm("quality", *images) for images in sets]
    columns = {
        f"Fréchet distance, {name} ↓": cells(results, f"fid_{c}", arms, extractor) for c, name in enumerate(CLASSES)
    }
    columns |= {
        HEADINGS[metric]: _later(results, metric, arms, extractor) for metric in ("fid_held_out", "fid_infinity")
    }
    further = (
        "Held-out patches: the validation split, as many as are judged; the other distances are to the subset's own"
        " patches. FID∞: a line in 1 / N over five sizes, at infinitely many images; it needs more than twice as many"
        " images as dimensions. "
    )
    notes = (
        f"Mean ± standard deviation over subsets. {_space(results, 'quality', extractor)}. {further}"
        f"{provenance_sentence(results, 'quality')}"
    )
    data = pd.DataFrame(columns, index=_rows(sets, "Calibration (ours)", CALIBRATION))
    title = f"In addition to Table 1: distances, judged by {extractor}"
    return Table(title, data, notes, line(results, "quality"))


def of_judge(results: pd.DataFrame, extractor: str) -> list[Table]:
    """All tables of one evaluation network: Table 1, what it lacks, and the distances, which older results do not
    have."""
    made = [table_1(results, extractor), table_1_more(results, extractor)]
    later = set(frame.of_kind(results, "quality", extractor)["metric"]) & {*LATER}
    return [*made, table_1_distances(results, extractor)] if later else made


def table_accepted(results: pd.DataFrame) -> Table:
    """How many of the candidates each selection accepted, by class, in percent."""
    sets = [images for images in judged(generators_of(results)) if images[1] not in (None, "none")]
    arms, selected = [Arm("selection", *images) for images in sets], frame.of_kind(results, "selection")
    columns = {f"Accepted, {name}, %": cells(results, f"accepted_{c}", arms) for c, name in enumerate(CLASSES)}
    notes = (
        "Mean ± standard deviation over subsets. Accepted by the classifier that selects"
        f" ({' and '.join(selected['extractor'].unique()) or NOT_RUN}), not by a judge."
        f" {provenance_sentence(results, 'selection')}"
    )
    data = pd.DataFrame(columns, index=_rows(sets, "", {}))
    return Table("Candidates accepted by selection", data, notes, line(results, "selection"))


def _later(results: pd.DataFrame, metric: str, arms: Sequence[Arm], extractor: str) -> list[str]:
    """Cells of a metric that older results lack; where a set was judged without it, why."""
    ran = set(frame.of_kind(results, "quality", extractor)["arm"])
    found = cells(results, metric, arms, extractor, missing="")
    return [text or (TOO_FEW[metric] if arm.name in ran else NOT_RUN) for text, arm in zip(found, arms)]


def table_label_content(results: pd.DataFrame) -> Table:
    """What samples teach through colour, at half and at full size, as `experiments.label_content.evaluate` measured
    it."""
    names = {"real": "The subset's real patches", "autoencoder": "VAE reconstructions of other real patches"}
    ran, every = frame.of_kind(results, "label-content"), results[results["kind"] == "label-content"]
    sets = [("real", None), ("autoencoder", None), *((g, "none") for g in generators_of(results))]
    arms = [Arm("label-content", *images) for images in sets]
    half, full, images = f"{HALF} px", f"{SIDE} px", listed(ran["n_fake"], " or ")
    headings = {
        "auc_colour": ("Trained on these, AUC on test patches, %", "colour histogram"),
        "auc_half": ("Trained on these, AUC on test patches, %", half),
        "auc_full": ("Trained on these, AUC on test patches, %", full),
        "auc_apart_half": ("Told apart from real patches, AUC, %", half),
        "auc_apart_full": ("Told apart from real patches, AUC, %", full),
    }
    columns = {heading: cells(results, metric, arms) for metric, heading in headings.items()}
    index = [names.get(g) or generators.label(g) for g, _ in sets]
    lacking = every[every["status"] != "ok"].drop_duplicates(["arm", "reason"])
    shown = dict(zip((arm.name for arm in arms), index))
    reasons = [f"{shown[line.arm]}: not run, {line.reason}." for line in lacking.itertuples()]
    notes = (
        f"Mean ± standard deviation over subsets, {images} images a set. Logistic regression on colour histograms, or"
        f" on frozen features ({listed(ran['judge'])}); {half}: averaged down and scaled up again. Its strength is"
        f" chosen on validation, and it is tested on {listed(ran['test_n'])} real patches. Samples without selection."
        " Told apart: cross-validated AUC of a classifier of real patches of the subset against the images of the row"
        f" (for real patches, against other real ones): 50 is not at all, 100 is always. {' '.join(reasons)}"
        f" {provenance_sentence(results, 'label-content')}"
    )
    data = pd.DataFrame(columns, index=index)
    return Table("What carries the label", data, notes, line(results, "label-content"))


def table_known_labels(results: pd.DataFrame) -> Table:
    """What class-based selection passes of right and of wrong labels, as `label_content.known_labels` measured it."""
    ran, arm = frame.of_kind(results, "known-labels"), Arm("known-labels", None, "class")
    headings = {
        "passed_right": "Passed with the right label, %",
        "passed_wrong": "Passed with the wrong label, %",
        "passed_realism": "Passed by realism without labels, %",
        "kept_right": "Labels right after selection, % (50 before)",
    }
    missing = NOT_PRINTED if len(ran) else NOT_RUN
    columns = {
        heading: [cells(results, metric + of, [arm], missing=missing)[0] for of in ("_0", "_1", "")]
        for metric, heading in headings.items()
    }
    notes = (
        f"Mean ± standard deviation over subsets. {listed(ran['n_new'])} real patches that neither generator nor"
        f" gatekeeper has seen. Features of {listed(ran['extractor'])} ({listed(ran['judge'])}), k ="
        f" {listed(ran['k'], ' or ', '–')}. Each patch is scored with its own label and with the other one. Labels"
        " right after selection: if half of the labels were wrong before; – where nothing passes."
        f" {provenance_sentence(results, 'known-labels')}"
    )
    index = [*CLASSES, "both classes"]
    data = pd.DataFrame(columns, index=index)
    return Table("Class-based selection with known labels", data, notes, line(results, "known-labels"))


def table_memorisation(results: pd.DataFrame) -> Table:
    """Are samples nearer to the training patches than new patches are? See `pcamlib.experiments.memorisation`."""
    sets = judged(generators_of(results))
    ran = frame.of_kind(results, "memorisation")
    sets = [*sets, *((name, None) for name in PLANTED if (ran["generator"] == name).any())]
    arms = [Arm("memorisation", *images) for images in sets]
    images = counts(ran, "n_fake")
    columns = {("Images", "compared"): [images.get(arm.name, NOT_RUN) for arm in arms]}
    for metric, heading in (
        ("nearer_train", "Nearest real patch is a training patch, %"),
        ("closer_than_new", "Closer to training than a new patch is, %"),
    ):
        p = frame.by_subset(results, f"{metric}_p")
        columns[heading, "mean ± sd"] = cells(results, metric, arms)
        columns[heading, "p, each subset"] = [
            ", ".join(_p(value) for value in p[arm.name].dropna()) if arm.name in p else NOT_RUN for arm in arms
        ]
    least = frame.by_subset(results, "least_ratio").min()
    columns["Least distance ratio", "training / new"] = [
        f"{least[arm.name]:.2f}" if arm.name in least.index else NOT_RUN for arm in arms
    ]
    expected = frame.by_subset(results, "nearer_train_expected").stack()
    share = listed((f"{100 * value:.1f}" for value in expected), " or ", "near one half")
    planted = ""
    if any(name in PLANTED for name, _ in sets):
        planted = (
            "Planted copies are training patches, turned, mirrored and slightly darker or lighter. The smallest share"
            " of them with a small p is what the test can detect. "
        )
    notes = (
        f"Mean ± standard deviation over subsets. {_space(results, 'memorisation')}. Without copying the first share"
        f" is {share} % on average. Blur alone can raise the second above 50 %. The controls say what the shares can"
        " show: copies that went through the autoencoder, as samples of the diffusion models do, may show in the first"
        " only, or hardly. p: one-sided, of a share as high as this without copying, not corrected for the number of"
        " rows."
        f" {planted}{provenance_sentence(results, 'memorisation')}"
    )
    data = pd.DataFrame(columns, index=_rows(sets, "Controls", MEMORISATION_CONTROLS))
    return Table("Memorisation", data, notes, line(results, "memorisation"))


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _space(results: pd.DataFrame, kind: str, extractor: str | None = None) -> str:
    """The feature space of these numbers, with what is known of its network."""
    ran = frame.of_kind(results, kind, extractor)
    if ran.empty:
        return f"Features of {extractor}" if extractor else NOT_RUN
    return f"Features of {ran['extractor'].iloc[0]} ({ran['judge'].iloc[0]})"


def _conventions(quality: pd.DataFrame) -> str:
    k = listed(quality["k"], " or ", "–")
    return f"Neighbours: k = {k}, a sphere includes its surface (≤), no point is its own neighbour."
