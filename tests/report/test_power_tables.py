"""Tables of power and of slides: their numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from made_up import write_run

from pcamlib.report import power_tables
from pcamlib.results import clusters, frame, intervals, load
from pcamlib.results.arms import BASELINE, TRADITIONAL, Arm


@pytest.fixture
def df(tmp_path):
    return load(write_run(tmp_path / "phantom-demo"), 2)


def test_power_table_by_hand():
    row = {"arm": "transfer-unet-none", "subsets": 3, "seeds": 2, "mean": 0.01, "subset": 0.002, "seed": None}
    row |= {"patch_subset": 0.0, "patch": 0.001, "sd": 0.0035, "detectable": 0.0123, "detectable_all": 0.05}
    row |= {"new_patches": 0.013, "needed": 7.0}
    arm = {"regime": "transfer", "generator": "unet", "selection": "none"}
    found = {"power": [row], "rows": [arm]}
    data, parts = power_tables.table_power(found).data, power_tables.table_components(found).data
    assert data.iloc[0].tolist() == ["3, 2", "0.35", "1.23", "5.00", "1.30", "7"]
    assert parts.iloc[0].tolist() == ["0.20", "–", "0.00", "0.10"]
    assert data.index[0] == "U-Net transfer (none)" and power_tables.table_power(None).data.empty
    assert "No test scores of two subsets were kept" in power_tables.table_power(None).line


def test_slides_and_coverage_have_tables(df):
    assert power_tables.table_slides(None) is None and power_tables.table_slides({"design": None}) is None
    made = clusters.simulate(np.random.default_rng(0), slides=30, patches=20)
    scores = {BASELINE: {0: [made.scores]}, TRADITIONAL: {0: [made.reference]}}
    scores |= {Arm("transfer", "unet", s): {0: [made.scores]} for s in ("none", "realism")}
    found = intervals.assemble(made.labels, scores, made.groups, frame.merged_provenance(df))
    table = power_tables.table_slides(found)
    assert list(table.data.index.get_level_values(1)) == [
        "Baseline",
        "Traditional augmentation",
        "U-Net transfer",
    ], "one selection"
    known = clusters.design(made.labels, made.scores, groups=made.groups)
    shown = [f"{known.icc:.3f}".replace("-", "−"), f"{known.effect:.2f}", f"{known.effective:,.0f}"]
    assert table.data["AUC"].iloc[0].tolist() == shown and known.effective < len(made.labels) / 2
    assert table.data["Difference to traditional augmentation"].iloc[1].tolist() == ["–"] * 3
    assert f"{len(made.labels):,} test patches of 30 slides" in table.notes

    found = clusters.coverage(200, seed=0)
    table = power_tables.table_coverage(found, clusters.SIMULATED)
    over_slides, over_patches = table.data.astype(float).to_numpy()
    assert (93 <= over_slides).all() and (over_slides <= 97).all() and (over_patches < 87).all()
    assert "200 simulated studies" in table.notes and "standard error of 1.5" in table.notes
