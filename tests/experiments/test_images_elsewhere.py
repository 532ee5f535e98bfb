"""A generator's images, exported and given to another run as a folder, give the same numbers there."""

import shutil

import numpy as np
import pytest
from small_selection import GATE

from pcamlib import data
from pcamlib.experiments import probes, quality, selection
from pcamlib.models import autoencoder, diffusion, generators
from pcamlib.workflow import export


@pytest.mark.slow
@pytest.mark.parametrize("form", ["png", "pcam"])
def test_the_dits_images_as_a_folder_have_its_quality_and_probe_numbers(open_tiny, tmp_path, form):
    first = open_tiny(generators=["dit"])
    autoencoder.encode_subset(first, autoencoder.train(first)[0])
    diffusion.train(first, "dit")
    selection.select(first, "dit", diffusion.load(first, "dit").sample, GATE)
    folder = tmp_path / "made elsewhere"
    export.export(first.synthetic("dit", "none"), folder, form)
    second = open_tiny(runs="others", generators=[{"name": "mine", "images": str(folder)}])
    shutil.copytree(first.folder / "autoencoder", second.folder / "autoencoder")
    selection.select(second, "mine", generators.find(second, "mine").sampler(second), GATE)
    # rows may come in another order: a folder has its classes one after the other
    ours, theirs = (data.load(s.synthetic(g, "none"), "train") for s, g in ((first, "dit"), (second, "mine")))
    for c in (0, 1):
        np.testing.assert_array_equal(ours.images[ours.labels == c], theirs.images[theirs.labels == c])

    judged = [quality.evaluate(s) for s in (first, second)]
    assert judged[0]["common_count"] == judged[1]["common_count"]
    rows = [
        {r["extractor"]: r for r in found["rows"] if (r["generator"], r["selection"]) == (name, "none")}
        for found, name in zip(judged, ("dit", "mine"))
    ]
    assert rows[0].keys() == rows[1].keys() and len(rows[0]) == 2
    for space, row in rows[0].items():
        numbers = {key for key, value in row.items() if isinstance(value, float)}
        assert {"fid", "kid", "precision", "recall", "label_auc"} <= numbers
        assert {key: rows[1][space][key] for key in numbers} == pytest.approx(
            {key: row[key] for key in numbers}, rel=1e-4
        )

    fitted = [probes.evaluate(s, name)["rows"] for s, name in ((first, "dit"), (second, "mine"))]
    for regime in ("synthetic", "augmentation", "transfer"):
        one, other = (next(r for r in found if (r["regime"], r["selection"]) == (regime, "none")) for found in fitted)
        assert one["status"] == other["status"] == "ok"
        for metric in ("auc", "accuracy", "valid_auc"):
            assert other[metric] == pytest.approx(one[metric], abs=1e-6), (regime, metric)
