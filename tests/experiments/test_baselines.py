"""Trivial baselines: what they see and do not see, against counting by hand; shuffled labels must fail."""

import numpy as np
import pytest

from pcamlib import metrics
from pcamlib.core.errors import StudyError
from pcamlib.data import Arrays
from pcamlib.experiments import baselines, classification
from pcamlib.experiments.baselines import Baselines
from pcamlib.results.arms import NO_NETWORK, Arm
from pcamlib.results.device import device


def test_colour_counts_pixels_and_not_places():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 12, 12, 3), dtype=np.uint8)
    found = baselines.colour(images)
    assert found.shape == (3, 96) and found.dtype == np.float32
    share = ((images[1, ..., 2] >= 40) & (images[1, ..., 2] < 48)).mean()
    assert found[1, 2 * 32 + 5] == pytest.approx(np.sqrt(share))
    moved = rng.permutation(images.reshape(3, -1, 3), axis=1).reshape(images.shape)
    np.testing.assert_array_equal(found, baselines.colour(moved))


def test_texture_sees_structure_and_neither_turns_nor_brightness():
    rng = np.random.default_rng(0)
    noise = rng.integers(60, 200, (1, 96, 96, 3), dtype=np.uint8)
    smooth = np.full_like(noise, 128)
    a, b, turned, brighter = (baselines.texture(x) for x in (noise, smooth, np.rot90(noise, axes=(1, 2)), noise + 40))
    assert a.shape == (1, 54) and (a**2).sum() == pytest.approx(3, abs=1e-5), "three histograms of shares"
    assert np.abs(a - b).max() > 0.3
    assert np.abs(a - turned).max() < 0.05 and np.abs(a - brighter).max() < 0.02


@pytest.fixture
def splits(patches):
    return {"valid": Arrays(*(a[128:160] for a in patches)), "test": Arrays(*(a[160:] for a in patches))}


@pytest.mark.parametrize("regime", ["colour", "texture", "colour-texture", "random-features"])
def test_each_baseline_scores_both_splits(open_tiny, splits, regime):
    fitted = Baselines(open_tiny(), splits).fit(regime)
    assert {name: len(scores) for name, scores in fitted.scores.items()} == {"valid": 32, "test": 32}
    auc = metrics.classification_metrics(splits["test"].labels, fitted.scores["test"])["auc"]
    assert auc > (0.95 if "colour" in regime else 0.6), "darker centres are easy to tell by colour"
    again = Baselines(open_tiny(), splits).fit(regime)
    np.testing.assert_array_equal(fitted.scores["test"], again.scores["test"])


def test_a_leak_of_labels_stops_the_run(open_tiny, splits, monkeypatch):
    assert len(Baselines(open_tiny(), splits).shuffled(0.1)) == baselines.SHUFFLES
    baselines.check([0.3, 0.7, 0.45, 0.55])
    with pytest.raises(StudyError, match="shuffled labels reach a mean test AUC of 90.0 instead of 50"):
        baselines.check([0.89, 0.9, 0.91])

    class Leaking:
        permutation = staticmethod(lambda labels: labels)

    monkeypatch.setattr(baselines.np.random, "default_rng", lambda seed: Leaking)
    with pytest.raises(StudyError, match="labels leak"):
        Baselines(open_tiny(), splits).shuffled(0.1)


def test_baselines_are_control_rows_of_the_real_result(open_tiny, monkeypatch):
    monkeypatch.setattr(classification, "arms", lambda generator: [Arm("traditional")])
    s = open_tiny()
    rows = classification.evaluate(s, "real")["rows"]
    assert [row["arm"] for row in rows] == ["traditional", *NO_NETWORK]
    for row in rows[1:]:
        assert row["control"] and row["status"] == "ok" and row["steps"] == 0 and row["n_real"] == 32
        assert 0 <= row["auc"] <= 1 and 0 <= row["ece"] <= 1 and row["seconds"] >= 0
    assert rows[-1]["shuffles"] == baselines.SHUFFLES and abs(rows[-1]["auc"] - 0.5) < 0.3
    assert classification.evaluate(s, "real")["rows"] == rows
    assert device(rows).rival_auc == max(row["auc"] for row in rows[1:-1])
