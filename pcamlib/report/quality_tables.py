"""Table 1 with the paper beside our run, what its columns leave out, and memorisation: the tables of generated images."""

from __future__ import annotations

from pcamlib.core import paper
from pcamlib.report.tables import HEADINGS, NOT_PRINTED, Table, cell, image_counts, provenance_sentence
from pcamlib.results import frame
from pcamlib.results.frame import METRICS, NOT_RUN, Arm, Row

CALIBRATION = {
    "real": "Real against other real (the floor)",
    "autoencoder": "VAE reconstructions (the cap)",
}
MEMORISATION_CONTROLS = {
    "real": "Validation patches (nothing is copied)",
    "autoencoder": "Reconstructions of training patches (everything is)",
}


def table_1(rows: list[Row], extractor: str) -> Table:
    """Table 1 in the paper's order, and the calibration rows, in one feature space.

    One table per extractor: distances and shares of two feature spaces must never meet in a column.
    """
    quality = [row for row in frame.of_kind(rows, "quality") if row["extractor"] == extractor]
    metrics = ("fid", "precision", "recall", "f1")
    of = len({row["subset"] for row in rows})
    lines = []
    for section, label, arm, printed in _quality_lines():
        row = {"section": section, "label": label, "images": image_counts(quality, arm, "n_fake")}
        for metric in metrics:
            row[f"{metric} paper"] = getattr(printed, metric).printed if printed else NOT_PRINTED
            row[metric] = cell(frame.summary(quality, arm, metric, extractor), metric, of)
        lines.append(row)
    few = ""
    if any(row["n_fake"] <= row.get("dims", 0) for row in quality if row["status"] == "ok"):
        few = "No more images than feature dimensions: the distance is biased upwards, compare within this table only. "
    head = [("Images judged", {"images": "ours"})]
    head += [(HEADINGS[metric], {f"{metric} paper": "paper", metric: "ours"}) for metric in metrics]
    caption = (
        f"Mean ± standard deviation over subsets. Ours: {_space(quality, extractor)}; the distance is FID proper in "
        f"Inception-V3's space only. {_conventions(quality)} {few}{provenance_sentence(quality)} "
        "Paper: full PCam, five subsets of 26,215, ImageNet-pretrained Inception-V3 for FID, an unstated "
        "extractor for precision and recall; so its columns are not comparable with ours in absolute value: "
        "compare the order of the rows."
    )
    return Table(f"Table 1. Image quality, judged by {extractor}", head, lines, caption)


def table_1_more(rows: list[Row], extractor: str) -> Table:
    """What Table 1 of the paper does not have: KID, density, coverage, label AUC, and how many candidates passed."""
    quality = [row for row in frame.of_kind(rows, "quality") if row["extractor"] == extractor]
    selected = frame.of_kind(rows, "selection")
    metrics = ("kid", "density", "coverage", "label_auc")
    of = len({row["subset"] for row in rows})
    lines = []
    for section, label, arm, _ in _quality_lines():
        row = {"section": section, "label": label}
        for metric in metrics:
            row[metric] = cell(frame.summary(quality, arm, metric, extractor), metric, of)
        for c in (0, 1):
            rates = [r["acceptance"][c] for r in selected if frame.arm_of(r)[1:] == arm[1:] and r["acceptance"]]
            row[f"accepted {c}"] = cell(frame.mean_sd(rates), "share", of) if rates else NOT_PRINTED
        lines.append(row)
    head = [(HEADINGS[metric], {metric: "ours"}) for metric in metrics]
    head += [("Candidates accepted, %", {"accepted 0": "no tumour", "accepted 1": "tumour"})]
    ran = [row for row in quality if row["status"] == "ok" and "kid" in row]
    error = f" (at most {1000 * max(row['kid_se'] for row in ran):.2f})" if ran else ""
    sizes = " or ".join(f"{n:,}" for n in sorted({row["kid_size"] for row in ran})) or "no"
    gates = " and ".join(dict.fromkeys(row["extractor"] for row in selected)) or "nobody"
    caption = (
        f"Mean ± standard deviation over subsets. {_space(quality, extractor)}. {_conventions(quality)} KID: mean over 100 "
        f"random subsets of {sizes} images; the standard error of a single value{error} is that of this mean. Density "
        "counts real spheres around a sample and may pass 1; coverage is the share of real spheres that hold one. "
        "Label AUC: how well the judge, a classifier of real patches, recognises the class each image was asked to show "
        f"(50 is chance). Candidates accepted: passed by the gatekeeper ({gates}), not by this judge. {provenance_sentence(quality)}"
    )
    return Table(f"Beside Table 1: what else {extractor} sees, and what selection let pass", head, lines, caption)


def table_memorisation(rows: list[Row]) -> Table:
    """Are samples nearer to the training patches than new patches are? See `pcamlib.experiments.memorisation`."""
    found = frame.of_kind(rows, "memorisation")
    of = len({row["subset"] for row in rows})
    ran = [row for row in found if row["status"] == "ok"]
    lines = []
    for section, label, arm, _ in _quality_lines():
        arm = ("memorisation", *arm[1:])
        mine = [row for row in ran if frame.arm_of(row) == arm]
        if arm[1] in CALIBRATION:
            section, label = "Controls", MEMORISATION_CONTROLS[arm[1]]
        row = {"section": section, "label": label, "images": image_counts(found, arm, "n_fake")}
        for metric in METRICS["memorisation"]:
            row[metric] = cell(frame.summary(found, arm, metric), metric, of)
            row[f"{metric} p"] = ", ".join(_p(r[f"{metric}_p"]) for r in mine) or NOT_RUN
        row["least_ratio"] = f"{min(r['least_ratio'] for r in mine):.2f}" if mine else NOT_RUN
        lines.append(row)
    share = sorted({f"{100 * row['nearer_train_expected']:.1f}" for row in ran})
    head = [
        ("Images", {"images": "ours"}),
        ("Nearest real patch is a training patch, %", {"nearer_train": "ours", "nearer_train p": "p, each subset"}),
        (
            "Closer to training than a new patch is, %",
            {"closer_than_new": "ours", "closer_than_new p": "p, each subset"},
        ),
        ("Least distance ratio", {"least_ratio": "training / new"}),
    ]
    caption = (
        f"Mean ± standard deviation over subsets. {_space(found, found[0]['extractor']) if found else NOT_RUN}. Without "
        f"copying the first share is {' or '.join(share) or 'near one half'} % on average; blur alone can raise the second above "
        "50 %, so copies show in both. p: one-sided, "
        f"of a share as high as this without copying, uncorrected for the number of rows. {provenance_sentence(found)}"
    )
    return Table("Memorisation", head, lines, caption)


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _quality_lines() -> list[tuple[str, str, Arm, paper.QualityRow | None]]:
    """(section, label, arm, printed row) in Table 1's order, then the calibration rows."""
    lines: list[tuple[str, str, Arm, paper.QualityRow | None]] = [
        (
            paper.SELECTION_HEADINGS[printed.selection],
            paper.GENERATOR_NAMES[printed.generator],
            ("quality", printed.generator, printed.selection),
            printed,
        )
        for printed in paper.TABLE_1
    ]
    return lines + [
        ("Calibration (ours)", label, ("quality", source, None), None) for source, label in CALIBRATION.items()
    ]


def _space(found: list[Row], extractor: str) -> str:
    return f"Features of {extractor}" + (f" ({found[0]['judge']})" if found else "")


def _conventions(quality: list[Row]) -> str:
    k = " or ".join(str(n) for n in sorted({row["k"] for row in quality if row["status"] == "ok"})) or "–"
    return f"Neighbours: k = {k}, a sphere includes its surface (≤), no point is its own neighbour."
