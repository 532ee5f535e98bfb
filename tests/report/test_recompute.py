"""The data of the page that recomputes: exact, within its room, and for any published run."""

from __future__ import annotations

import base64
import json
import shutil

import numpy as np
import pandas as pd
import pytest
from made_up import write_run

from pcamlib.core.errors import StudyError
from pcamlib.report import recompute
from pcamlib.results import claims, compact, frame, load
from pcamlib.results.published import Published, published_folder, published_runs


@pytest.fixture(scope="module")
def run() -> Published:
    return published_runs()[0]


def unpacked(text: str, bits: int, count: int) -> np.ndarray:
    digits = np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), bitorder="little")[: bits * count]
    return digits.reshape(count, bits) @ (1 << np.arange(bits))


def test_numbers_survive_packing():
    numbers = np.random.default_rng(0).integers(0, 2**13, 1001)
    text = recompute.packed(numbers, 13)
    assert len(base64.b64decode(text)) == -(-13 * 1001 // 8)
    np.testing.assert_array_equal(unpacked(text, 13, 1001), numbers)


def test_a_curve_keeps_order_ties_and_thresholds():
    scores = np.array([0.5, 0.2, 0.5, 0.505, 0.0], np.float32)
    ranks, cuts = recompute.curve(scores)
    assert ranks.tolist() == [2, 1, 2, 3, 0]
    for threshold, cut in zip(recompute.THRESHOLDS, cuts, strict=True):
        np.testing.assert_array_equal(ranks >= cut, scores.astype(np.float64) >= threshold)


def test_the_content_holds_every_score_in_its_room(run):
    found = recompute.content(run, published_folder())
    assert len(recompute.written(found)) < 3_000_000
    kept = recompute.kept_scores(published_folder(), run.name)
    listed = {(d, k, *arm) for d, subsets in kept.curves.items() for k, arms in subsets.items() for arm in arms}
    assert {tuple(name) for name in found["curves"]} == listed, "no subset was left out of the present run"
    device, subset, arm, seed = found["curves"][-1]
    ranks, cuts = kept.curves[device][subset][arm, seed]
    numbers = unpacked(found["packed"][-1], found["bits"], len(ranks) + len(cuts))
    np.testing.assert_array_equal(numbers, np.concatenate([ranks, cuts]))
    assert found["labels"] == "".join(map(str, kept.labels.tolist()))


@pytest.fixture
def three(run, tmp_path):
    """A run of three subsets, and the folder of its scores: the first published subset three times."""
    first = run.results[run.results["subset"] == 0]
    (tmp_path / "scores" / run.name).mkdir(parents=True)
    for path in (published_folder() / "scores" / run.name).glob("subset-0*.npz"):
        for k in range(3):
            shutil.copy(path, tmp_path / "scores" / run.name / path.name.replace("-0", f"-{k}"))
    return run._replace(results=pd.concat([first.assign(subset=k) for k in range(3)], ignore_index=True)), tmp_path


def test_later_subsets_give_way(three, monkeypatch):
    every = recompute.content(*three)
    monkeypatch.setattr(recompute, "ROOM", len(recompute.written(every)) - 1)
    fewer = recompute.content(*three)
    whole, kept = ({tuple(name[:2]) for name in found["curves"]} for found in (every, fewer))
    assert kept < whole and {subset for _, subset in whole - kept} == {2}
    assert len(recompute.written(fewer)) <= recompute.ROOM
    assert fewer["devices"] == every["devices"], "values stay"


def test_the_questions_are_those_of_the_rules(run):
    found = recompute.content(run, published_folder())
    assert [c["number"] for c in found["claims"]] == list(range(1, 14))
    source = recompute.sources(run)["classification"]
    for claim, rule in zip(found["claims"], claims.RULES, strict=True):
        texts = [s["text"] for part in claim["parts"] for s in part["statements"]]
        assert texts == [s.text for s in rule(source).statements] and texts
        assert claim["of_classifiers"] == (rule in claims.OF_CLASSIFIERS)
    assert [[part["every"] for part in c["parts"]] for c in found["claims"]][4] == [True, False, False]
    assert (
        sum(s["asked"].get("absence", False) for c in found["claims"] for p in c["parts"] for s in p["statements"]) == 1
    )


def test_slides_of_the_run_are_used(run):
    n = len(recompute.kept_scores(published_folder(), run.name).labels)
    groups = [i % 40 for i in range(n)]
    assert recompute.content(run, published_folder())["groups"] is None
    with_slides = run._replace(intervals={"classification": {"groups": groups}})
    assert recompute.content(with_slides, published_folder())["groups"] == groups


def test_two_devices_and_no_scores(tmp_path):
    results = load(write_run(tmp_path / "phantom-demo", 3), 3)
    made = Published("phantom-demo", results, {})
    found = recompute.content(made, tmp_path)
    expected = [d for d in frame.DEVICES if d == "classification" or frame.has_probe(results)]
    assert list(found["devices"]) == expected and not found["curves"] and found["labels"] == ""
    for device in found["devices"].values():
        assert [arm for arm in device["arms"] if arm["name"] == "traditional"][0]["group"] == "Real patches only"
        assert all(len(values) == 3 for table in device["values"].values() for values in table.values())
    assert recompute.flips(made)


def test_the_page_says_where_it_comes_from(run, tmp_path):
    text = recompute.page(published_folder())
    assert f"book/reference/scores/{run.name}/" in text and frame.provenance_note(run.provenance)[:20] in text
    data = text.split('id="recompute-data">')[1].split("</script>")[0]
    assert json.loads(data)["run"] == run.name and "<" not in data
    assert text.count("recompute-still") == 1
    assert "No run is published" in recompute.page(tmp_path)
    compact.write(run.results, tmp_path / f"{run.name}.csv")
    bare = recompute.page(tmp_path)
    assert "recompute-still" not in bare, "no figure was published"


def test_scores_that_disagree_are_refused(three):
    run, tmp_path = three
    path = tmp_path / "scores" / run.name / "subset-1.npz"
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **arrays | {"labels": 1 - arrays["labels"]})
    with pytest.raises(StudyError, match="subset-1.npz has other labels"):
        recompute.kept_scores(tmp_path, run.name)
