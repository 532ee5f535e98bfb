"""Selection while generating: exact counts, one stream, caps, and a kill that changes nothing."""

import hashlib

import numpy as np
import pytest
from small_selection import GATE, Sampler, colour

from pcamlib import data, metrics
from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.experiments import selection
from pcamlib.study import SELECTIONS


def sets(study, generator):
    return {s: data.load(study.synthetic(generator, s), "train") for s in SELECTIONS}


def test_counts_are_the_real_ones_and_each_selection_drops_what_it_should(open_tiny):
    s = open_tiny(**{"selection.candidates": 8})
    result = selection.select(s, "unet", Sampler(s), GATE)
    for name, found in result["selections"].items():
        assert found["requested"] == found["kept"] == [16, 16] and not found["short"], name
    assert result["selections"]["none"]["acceptance"] is None
    assert 0.2 < result["selections"]["realism"]["acceptance"][0] < 0.8
    # a patch of the wrong class is realistic, but not for its class
    assert result["selections"]["realism"]["acceptance"][1] == 1
    assert 0.2 < result["selections"]["class"]["acceptance"][1] < 0.8
    made = sets(s, "unet")
    assert (made["none"].images[made["none"].labels == 0] == 255).all((1, 2, 3)).any()
    for name in ("realism", "class"):
        for c in (0, 1):
            reference = s.real.images if name == "realism" else s.real.images[s.real.labels == c]
            scores = metrics.realism(
                real=colour(reference), fake=colour(made[name].images[made[name].labels == c]), k=3
            )
            assert (scores >= 1).all()
    real = {image.tobytes() for image in s.real.images} | {np.full((96, 96, 3), 255, np.uint8).tobytes()}
    assert all(image.tobytes() in real for found in made.values() for image in found.images), "images arrive unchanged"
    card = read_json(s.synthetic("unet", "none") / "card.json")
    for name in ("realism", "class"):
        assert len(card["scores"][name]) == 32 and min(card["scores"][name]) < 1
        assert [len(x) for x in result["scores"][name]] == [64, 64]
    kept = read_json(s.synthetic("unet", "class") / "card.json")["scores"]["class"]
    assert len(kept) == 32 and min(kept) >= 1


def test_one_stream_feeds_all_selections(open_tiny):
    s = open_tiny(**{"selection.candidates": 8})
    selection.select(s, "unet", Sampler(s, bad=0), GATE)
    made = sets(s, "unet")
    for name in ("realism", "class"):
        np.testing.assert_array_equal(made["none"].images, made[name].images)


def test_a_generator_that_never_passes_ends_at_the_cap_and_says_so(open_tiny):
    s = open_tiny(**{"selection.candidates": 2})
    result = selection.select(s, "dit", lambda labels, seed: np.full((len(labels), 96, 96, 3), 255, np.uint8), GATE)
    assert result["candidates"] == 64
    assert result["selections"]["none"]["kept"] == [16, 16]
    for name in ("realism", "class"):
        found = result["selections"][name]
        assert (
            found["kept"] == [0, 0] and found["seen"] == [32, 32] and found["short"] and found["acceptance"] == [0, 0]
        )
        assert selection.synthetic(s, "dit", name) is None
    assert selection.synthetic(s, "dit", "none").images.shape == (32, 96, 96, 3)


def test_a_stored_score_agrees_with_the_decision():
    """0.99996 was dropped, so it may not be stored as the 1.0 to which it rounds."""
    scores = np.array([0.5, 0.99994, 0.99996, np.nextafter(1, 0), 1.0, 1.00004, 2.00009, 1e12])
    stored = np.array(selection._stored(scores))
    np.testing.assert_array_equal(stored >= 1, scores >= 1)
    np.testing.assert_array_equal(stored, [0.5, 0.9999, 0.9999, 0.9999, 1, 1, 2.0001, 1e6])


def test_a_killed_selection_goes_on_to_the_same_sets(open_tiny, monkeypatch):
    monkeypatch.setattr(selection, "BATCH", 8)
    whole, cut = (open_tiny(runs=name, **{"selection.candidates": 8}) for name in ("whole", "cut"))
    selection.select(whole, "unet", Sampler(whole), GATE)
    with pytest.raises(KeyboardInterrupt):
        selection.select(cut, "unet", Sampler(cut, die_after=3), GATE)
    assert not (cut.results / "selection-unet.json").exists()
    again = Sampler(cut)
    resumed = selection.select(cut, "unet", again, GATE)
    straight = Sampler(whole)
    for name in SELECTIONS:
        a, b = sets(whole, "unet")[name], sets(cut, "unet")[name]
        assert hashlib.sha256(a.images.tobytes()).digest() == hashlib.sha256(b.images.tobytes()).digest()
        np.testing.assert_array_equal(a.labels, b.labels)
    assert again.calls < resumed["candidates"] / 8
    # finished: nothing is generated again
    selection.select(whole, "unet", straight, GATE)
    assert straight.calls == 0 and not (whole.folder / "candidates" / "unet").exists()


def test_a_set_that_was_not_made_names_its_notebook(open_tiny):
    with pytest.raises(StudyError, match="05_selection.md .generator histogan. for subset 0 first"):
        selection.synthetic(open_tiny(), "histogan", "none")


def test_examples_are_the_last_that_pass_and_the_lowest_of_the_others():
    kept, dropped = selection.examples(np.array([0.5, 1.0, 2.0, 0.1, 1.5, 0.9]), count=2)
    assert kept.tolist() == [2, 4] and dropped.tolist() == [3, 0]
    kept, dropped = selection.examples(np.array([1.0, 2.0]))
    assert kept.tolist() == [0, 1] and not len(dropped)
