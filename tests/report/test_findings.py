"""Sentences about a run say what its numbers say."""

from __future__ import annotations

import pytest
from made_up import edit, not_run, write_run

from pcamlib.report import findings
from pcamlib.results import frame, load
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


def only(sentences: list[str], part: str) -> str:
    (sentence,) = [s for s in sentences if part in s]
    return sentence


def test_quality_order_as_in_the_paper(run):
    sentences = findings.findings_quality(load(run, 2), "judge-a")
    fid = only(sentences, "By Fréchet distance")
    assert "DiT 40.50 ± 0.71, U-Net 50.50 ± 0.71, HistoGAN 100.50 ± 0.71; the paper has the same order" in fid
    change = only(sentences, "Realism selection changed the distance")
    assert "HistoGAN +5.00 (paper +6.09)" in change and "DiT +5.00 (paper +4.32)" in change
    assert "distance 2.500 ± 0.707, reconstructions by the autoencoder 10.50 ± 0.71" in only(
        sentences, "For comparison"
    )
    beside = only(sentences, "on these images alone (fine-tuned network), by subset")
    assert "HistoGAN 100.0 and 67.0 %; 101.0 and 68.0 %. U-Net 50.0 and 71.0 %;" in beside
    df = load(run, 2)
    probed = df[(df["kind"] != "classification") | df["generator"].isna()]
    assert "not run" not in only(findings.findings_quality(probed, "judge-a"), "alone (linear probe), by subset")


def test_what_generated_patches_teach_alone(run):
    trained, apart = findings.label_content(load(run, 2))
    assert (
        "HistoGAN 75.0 and 70.0 %, U-Net 75.0 and 70.0 %, DiT 75.0 and 70.0 %, real patches 90.0 and 70.0 %." in trained
    )
    assert apart == (
        "Generated patches are told apart from real ones with AUC 95.0 %, reconstructions of real patches by the"
        " autoencoder with 55.0 %, other real patches with 55.0 %."
    )

    def spoil(content):
        for row in content["rows"]:
            row["full"] -= 0.2 * (row["generator"] in ("histogan", "dit"))

    for subset in (0, 1):
        edit(run / f"subset-{subset}/results/label-content.json", spoil)
    assert findings.label_content(load(run, 2))[0].endswith(
        "real patches 90.0 and 70.0 %; nothing shows that those of HistoGAN, DiT teach more than their colours."
    )
    df = load(run, 2)
    assert findings.label_content(df[df["kind"] != "label-content"]) == []


def test_what_selection_does_to_known_labels(run):
    df = load(run, 2)
    (said,) = findings.known_labels(df)
    assert "passes 80 % with their own label and 20 % with the other one" in said and "85 %). " in said
    assert said.endswith("If half of the labels were wrong, 80 % of those kept would be right.")
    assert findings.known_labels(df[df["kind"] != "known-labels"]) == []


def test_quality_order_unlike_the_paper(run):
    def spoil(content):
        for row in content["rows"]:
            if row["generator"] == "dit":
                row["fid"] += 500

    for subset in (0, 1):
        edit(run / f"subset-{subset}/results/quality.json", spoil)
    fid = only(findings.findings_quality(load(run, 2), "judge-a"), "By Fréchet distance")
    assert fid.index("U-Net 50.50") < fid.index("HistoGAN 100.50") < fid.index("DiT 540.50")
    assert fid.endswith("the paper's order is DiT, U-Net, HistoGAN.")


def test_the_best_arm_is_chosen_on_validation_by_other_subsets(run):
    # the made-up validation AUC is worst where the test AUC is best
    sentence = only(findings.findings_classification(load(run, 2)), "on validation")
    assert "for each subset the other subsets choose (HistoGAN augmentation (none) in 2 of 2)" in sentence
    assert "−4.00 points against traditional augmentation, the same in every subset." in sentence
    assert "The paper's best is U-Net transfer (realism), +0.55 points" in sentence
    assert "too few subsets and seeds ran to choose" in only(
        findings.findings_classification(load(run, 1)), "validation"
    )


def test_classification_sentences(run):
    sentences = findings.findings_classification(load(run, 2))
    assert "80.50 %, traditional augmentation 85.50 %: +5.00 points" in only(sentences, "Baseline reaches")
    assert "(paper +2.82)" in only(sentences, "Baseline reaches")
    both = only(sentences, "above baseline and traditional")
    # U-Net: transfer 87 and augmentation 85 + selection; its unselected augmentation only equals traditional
    assert "HistoGAN 0 of 6 (paper 4 of 6), U-Net 5 of 6 (paper 6 of 6), DiT 3 of 6 (paper 3 of 6)" in both
    steps = only(sentences, "Above the stronger step control, Traditional, twice the steps")
    assert steps.endswith("HistoGAN 0 of 6, U-Net 3 of 6, DiT 2 of 6."), "86 against transfer with 87 and 86"
    assert "HistoGAN +2.00, U-Net +2.00, DiT +2.00 (paper: HistoGAN −0.15" in only(sentences, "Transfer minus")
    assert "HistoGAN +0.40, U-Net +0.40, DiT +0.40" in only(sentences, "Realism selection minus none")
    assert "U-Net 71.70 %, DiT 70.70 %, HistoGAN 67.70 %" in only(sentences, "synthetic images only")


def test_helpers_by_hand():
    means = {
        BASELINE: 0.8,
        TRADITIONAL: 0.9,
        Arm("transfer", "dit", "none"): 0.91,
        Arm("augmentation", "dit", "none"): 0.85,
        Arm("synthetic", "dit", "none"): 0.99,
    }
    assert findings.beats_both(means, "dit") == (1, 2)
    assert findings.beats_both(means, "unet") == (0, 0)
    pair = (Arm("transfer", "dit", "none"), Arm("augmentation", "dit", "none"))
    absent = (Arm("transfer", "unet", "none"), Arm("augmentation", "unet", "none"))
    assert findings.gain(means, [pair, absent]) == pytest.approx(0.06)
    assert findings.gain(means, [absent]) is None


def test_controls(run):
    df = load(run, 2)
    double = (df["arm"] == "double-real") & (df["metric"] == "auc")
    df.loc[double, "value"] += (
        0.02 * df["subset"]
    )  # differences of 5 and 7 points: a standard error of 1, and t is 12.71
    device, *sentences = findings.findings_controls(df)
    assert device.startswith(
        "Traditional augmentation reaches AUC 85.50 %, above the best trivial baseline (colour and"
    )
    assert [s.rsplit(": ", 1)[1] for s in sentences] == [
        "+1.00 AUC points, the same in every subset.",
        "+0.50 AUC points, the same in every subset.",
        "+6.00 AUC points, 95 % t interval −6.71 to +18.71.",
    ]
    assert findings.findings_controls(df[df["arm"] != "double-real"])[3].endswith("not run.")
    *_, few, many = findings.findings_controls(frame.by_device(df, "probe"))
    assert few.startswith("Pseudo-labels, as many as real (as many further real images, labelled by the traditional")
    assert few.endswith(": +1.50 AUC points, the same in every subset.") and ": +2.00 AUC points" in many


def test_nothing_run_is_said_not_guessed(run):
    df = load(run, 2).query("kind == 'selection'")
    assert all("not run" in s for s in findings.findings_quality(df, "judge-a"))
    text = " ".join(findings.findings_classification(df))
    assert "HistoGAN not run" in text and "0 of 0" in text


def test_gaps(run):
    probe = "Not run in probe, because a regression has no steps: Traditional, twice the steps, subset 0 and 1."
    assert findings.gaps(load(run, 2)) == [probe]
    for subset in (0, 1):
        not_run(
            run / f"subset-{subset}/results/classification-histogan.json",
            selection="class",
            regime="transfer",
        )
    not_run(run / "subset-1/results/quality.json", generator="real")
    not_run(run / "subset-1/results/classification-real.json", regime="double-real")
    (run / "subset-1/results/memorisation.json").unlink()
    assert findings.gaps(load(run, 2)) == [
        'subset-1/results/memorisation.json does not exist: its cells say "not run".',
        (
            "Not run in classification, because kept 3 of 256: HistoGAN transfer (class-based), subset 0 and 1; "
            "Twice the real data, subset 1."
        ),
        probe,
        "Not run in quality, because kept 3 of 256: Other real patches, subset 1.",
    ]


def test_images_or_steps(run):
    augmentation, transfer, closely = findings.images_or_steps(load(run, 2))
    # traditional 85, real to real 85.5, and twice the steps 86, the stronger
    # augmentation: U-Net 85, 85.4, 85.2; transfer: U-Net 87 and more, DiT 86, 86.4, 86.2
    assert (
        augmentation
        == "By augmentation, 0 of 9 arms are above the stronger control, Traditional, twice the steps (mean AUC; "
        "2 above Traditional augmentation; 0 above Transfer, real to real)."
    )
    assert (
        "By transfer, 5 of 9 arms are above the stronger control" in transfer and "6 above Transfer, real" in transfer
    )
    # chosen on validation, where the made-up order is turned round
    assert "(HistoGAN augmentation (none) in 2 of 2): −5.00 points" in closely
    assert closely.endswith("without an interval: undecided."), "equal differences in two subsets are no proof"
    assert "too few subsets and seeds" in findings.images_or_steps(load(run, 1))[2]
    df = load(run, 2)
    df.loc[(df["arm"] == "traditional-2x") & (df["metric"] == "auc") & (df["subset"] == 1), "value"] += 0.02
    assert findings.images_or_steps(df)[2].endswith("images and steps cannot be told apart."), "−5 and −7 points"
    bare = df[~df["regime"].isin(("colour", "texture", "colour-texture", "random-features"))]
    assert findings.images_or_steps(bare)[2].endswith("No verdict. No trivial baseline was run.")
    nothing = findings.images_or_steps(df[df["kind"] == "selection"])
    assert nothing == ["No control of as many steps was run, so images and steps cannot be told apart: not run."]


def test_probes_are_compared_with_real_to_real_and_traditional(run):
    sentences = findings.images_or_steps(frame.by_device(load(run, 2), "probe"))
    assert "above the stronger control, Transfer, real to real (mean AUC; 2 above Traditional" in sentences[0]


def test_limits(run, tmp_path):
    text = findings.limits(load(run, 2))
    assert "nothing here says whether they help" in text  # made-up arms differ alike in both subsets
    assert "nothing about tissue" in text and "1,000 images" in text
    found = {"low": -0.02, "high": 0.03}
    arm = {"regime": "transfer", "generator": "dit", "selection": "none", "traditional": found}
    assert "±2.50 points of AUC (half of the 95 % interval, test" in findings.limits(load(run, 2), {"rows": [arm]})
    assert findings.limits(load(run, 1), {"rows": [arm]}).startswith("One subset says nothing about the next")


def test_an_arm_that_missed_a_subset_is_not_compared_by_its_mean(run):
    """Its mean is of other subsets than the references' are."""
    not_run(run / "subset-1/results/classification-unet.json", selection="realism", regime="transfer")
    means = findings.auc_means(load(run, 2))
    assert Arm("transfer", "unet", "realism") not in means and Arm("transfer", "unet", "none") in means
    assert "U-Net 4 of 5" in only(findings.findings_classification(load(run, 2)), "above baseline and")
