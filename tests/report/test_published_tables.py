"""Tables of published runs: every column of the paper has its caveat, every run its scale, every gap its word."""

from __future__ import annotations

import pandas as pd
import pytest
from made_up import not_run, write_run

from pcamlib.core import paper
from pcamlib.core.settings import load_profile
from pcamlib.report import published_tables
from pcamlib.results import frame, intervals, load
from pcamlib.results.published import published_runs


@pytest.fixture
def own(tmp_path):
    return load(write_run(tmp_path / "phantom-demo", 2), 2)


def test_protocols_differ_line_by_line(own):
    published = published_runs()[0]
    data = published_tables.protocol({"slice": published.results, "this run": own}).data
    lines = data.droplevel(0).to_dict("index")
    assert lines["data"]["slice"].endswith("re-encoded as JPEG (quality 75, halved chroma)")
    assert lines["data"]["this run"] == "phantom: procedural patches, no tissue"
    starts = {"none": "random initialisation", "package": "ImageNet weights"}
    (weights,) = published.results.loc[published.results["regime"] == "traditional", "pretrained"].dropna().unique()
    assert lines["classifier starts from"]["paper"] == "ImageNet weights"
    assert lines["classifier starts from"]["slice"] == starts[weights]
    assert (lines["subsets × real patches"]["paper"], lines["subsets × real patches"]["this run"]) == (
        "5 × 26,215",
        "2 × 256",
    )
    assert lines["pixels, learning rate × batch"]["paper"] == "96 × 96, 0.0001 × 32"
    assert lines["pixels, learning rate × batch"]["this run"] == published_tables.CHANGED, "a made-up profile"
    assert lines["features of the distance"]["this run"] == "judge-a" and lines["seeds of a subset"]["this run"] == "1"
    sections = " ".join(data.index.get_level_values(0))
    for column in (
        "FID",
        "precision",
        "recall",
        "F1",
        "accuracy",
        "sensitivity",
        "specificity",
        "Table 2: every column",
    ):
        assert column in sections


def test_settings_are_those_of_the_profile_only_while_it_is_the_same(own):
    slice_ = load_profile("slice")
    same = own.assign(profile="slice", profile_sha=slice_.sha)
    lines = published_tables.protocol({"a run": same}).data.droplevel(0)["a run"]
    assert lines["pixels, learning rate × batch"].startswith(f"{slice_.classifier.image_size} × ")
    assert lines["orientations shown, guidance, sampler"].startswith(f"{slice_.orientations}, ")
    same.loc[0, "profile_sha"] = "another"
    assert published_tables.protocol({"a run": same}).data["a run"].iloc[4] == published_tables.CHANGED


def test_paper_published_and_own_stand_beside_each_other(tmp_path):
    root = write_run(tmp_path / "run", 3)
    for subset in range(3):
        not_run(root / f"subset-{subset}/results/classification-unet.json", regime="transfer", selection="class")
    df, nothing = load(root, 3), intervals.table(None, "traditional")
    drawn = pd.DataFrame({"low": [-0.01], "high": [0.05], "q": [0.5]}, index=["transfer-unet-realism"])
    data = published_tables.beside({"a": df, "b": df}, {"a": drawn, "b": nothing}).data
    assert data.loc["U-Net transfer (realism)"].tolist() == [
        "+0.55",
        "+2.40 (−1.00 to +5.00)",
        "+2.40 (none: the same in every subset)",
    ]
    assert data.loc["U-Net transfer (class-based)", "a"] == "not run"
    assert data.loc["Traditional augmentation", "a"] == "+0.00" and data.loc["Twice the real data", "paper"] == "–"
    assert len(data) == len(paper.TABLE_2) + 9 + 3 + 4 + 5


def test_the_gain_by_generated_patches_is_a_share_of_the_gain_by_real_ones(tmp_path):
    df = load(write_run(tmp_path / "run", 3), 3)
    for arm, gains in (("double-real", (0.0, 0.001, -0.001)), ("augmentation-unet", (0.071, 0.073, 0.072))):
        for k, gain in enumerate(gains):
            lines = df["arm"].str.startswith(arm) & (df["metric"] == "auc") & (df["subset"] == k)
            df.loc[lines, "value"] += gain
    table = published_tables.shares({"classification": frame.by_device(df, "classification")})
    assert table.data.index.tolist() == ["HistoGAN", "U-Net", "DiT"] and list(table.data) == ["fine-tuned network"]
    # gains of 6.3, 6.5 and 6.4 points over twice the steps, 4.0, 4.1 and 3.9 by twice the real patches
    value = table.data.loc["U-Net", "fine-tuned network"]
    assert value.startswith("+1.60 (+1.") and value.endswith(")")
    assert published_tables.shares({"classification": df[df["arm"] != "double-real"]}) is None
