"""Memorisation: chance where nothing is copied, alarm where patches are, also turned, mirrored and blurred ones."""

import dataclasses

import numpy as np
import pytest

from pcamlib.experiments import features, memorisation
from pcamlib.experiments.memorisation import compare, oriented


def small(images):
    """A feature space of our own: 12 x 12 grey pixels; the spread of the noise, not its mean, tells patches apart."""
    return images.astype(np.float32).mean(3).reshape(len(images), 12, 8, 12, 8).mean((2, 4)).reshape(len(images), -1)


SPACE = features.Extractor("small", "12 x 12 grey pixels", small)


def textured(n, seed):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(60, 200, (n, 12, 12, 3), dtype=np.uint8)
    return coarse.repeat(8, 1).repeat(8, 2)


def run(samples, turns=1, n=120):
    train, new = memorisation.Indexed(SPACE, textured(n, 0), turns), memorisation.Indexed(SPACE, textured(n, 1), turns)
    baseline = train.nearest(new.features[:n]).distance
    near, other = train.nearest(small(samples)), new.nearest(small(samples))
    return compare(near, other, baseline, n), near


def test_new_patches_are_as_near_to_one_set_as_to_the_other():
    found, _ = run(textured(200, 2))
    assert 0.4 < found["nearer_train"] < 0.6 and found["nearer_train_p"] > 0.01
    assert 0.4 < found["closer_than_new"] < 0.6 and found["closer_than_new_p"] > 0.01
    assert found["nearer_train_expected"] == 0.5 and found["least_ratio"] > 0.7


@pytest.mark.parametrize("turn", range(8))
def test_noisy_copies_are_found_in_every_orientation(turn):
    copies = oriented(textured(120, 0), turn)
    noise = np.random.default_rng(3).integers(0, 40, copies.shape, dtype=np.uint8)
    found, near = run(copies // 2 + 40 + noise, turns=8)
    assert found["nearer_train"] > 0.95 and found["nearer_train_p"] == 0.001
    exact, near = run(copies, turns=8)
    np.testing.assert_array_equal(near.row, np.arange(120))
    assert exact["least_ratio"] == 0 and exact["closer_than_new"] == 1 and exact["closer_than_new_p"] < 1e-6
    back = np.stack([oriented(textured(120, 0)[i][None], t)[0] for i, t in enumerate(near.turn)])
    np.testing.assert_array_equal(back, copies)


def test_a_share_of_copies_among_many_new_samples_raises_the_alarm():
    mixed = np.concatenate([textured(100, 4), textured(120, 0)[:100]])
    found, _ = run(mixed)
    assert 0.65 < found["nearer_train"] < 0.85 and found["nearer_train_p"] < 0.01


def test_poor_samples_are_not_called_copies():
    loud, _ = run(np.where(textured(200, 6) > 130, 255, 0).astype(np.uint8))
    assert loud["closer_than_new"] < 0.2 and loud["closer_than_new_p"] > 0.99
    assert 0.4 < loud["nearer_train"] < 0.6
    blurred, _ = run(textured(200, 7) // 8 + 114)  # near the mean, and so near to everything
    assert blurred["closer_than_new"] > 0.9
    assert 0.3 < blurred["nearer_train"] < 0.7 and blurred["nearer_train_p"] > 0.05


def near(distance, row):
    return memorisation.Nearest(np.array(distance, float), np.array(row), np.zeros(len(row), int))


def test_unequal_sets_and_ties():
    found = compare(near([1, 2, 3, 0], range(4)), near([1, 1, 4, 0], range(4)), np.array([2.0] * 10), 30)
    assert found["nearer_train"] == 0.5 and found["nearer_train_expected"] == 0.75
    assert found["closer_than_new"] == (2 + 0.5) / 4  # two samples closer, one as close, one farther
    assert found["least_ratio"] == 0 and found["n_fake"] == 4 and found["n_new"] == 10


def test_many_samples_at_one_patch_are_one_piece_of_evidence():
    at_one = compare(near([1] * 50, [7] * 50), near([2] * 50, range(50)), np.ones(50), 50)
    at_many = compare(near([1] * 50, range(50)), near([2] * 50, range(50)), np.ones(50), 50)
    assert at_one["nearer_train"] == at_many["nearer_train"] == 1
    assert at_one["nearer_train_p"] > 0.3 and at_many["nearer_train_p"] == 0.001


def test_orientations_are_those_the_generators_learn_from():
    import torch

    from pcamlib.models.tensors import orient

    image = textured(1, 0)
    x = torch.from_numpy(image).permute(0, 3, 1, 2)
    for turn in range(8):
        expected = orient(x, torch.tensor([turn])).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(oriented(image, turn), expected)


def test_byte_for_byte_copies_are_not_new(open_tiny):
    s = open_tiny()
    images, source, copies = memorisation.new_patches(s)
    assert source == "other rows of the train split" and copies == 0 and len(images) == 32
    s = dataclasses.replace(s, others=np.concatenate([s.rows[:3], s.others[3:]]))  # as PCam has them
    images, source, copies = memorisation.new_patches(s)
    assert copies == 3 and len(images) == 29


@pytest.mark.parametrize("size, source", [(32, "other rows of the train split"), (128, "half of the validation split")])
def test_the_control_is_never_compared_with_itself(open_tiny, monkeypatch, size, source):
    s = open_tiny(**{"subsets.size": size, "subsets.count": 1, "orientations": 1})
    monkeypatch.setattr(memorisation.features, "first_space", lambda study: SPACE)
    monkeypatch.setattr(memorisation.selection, "synthetic", lambda *which: None)
    monkeypatch.setattr(memorisation.selection, "shortage", lambda *which: "a class has no image")
    monkeypatch.setattr(memorisation.autoencoder, "load", lambda study: None)
    monkeypatch.setattr(memorisation.autoencoder, "reconstruct", lambda decoder, images: images)
    result = memorisation.evaluate(s)
    control, copied, *planted = result["rows"][-5:]
    assert result["new"].startswith(source) and result["n_new"] == (32 if size == 32 else 16)
    assert control["generator"] == "real" and 0.2 < control["nearer_train"] / control["nearer_train_expected"] < 2
    assert control["least_ratio"] > 0.3, "a patch that finds itself is infinitely nearer to the new ones"
    assert copied["nearer_train"] == 1 and copied["least_ratio"] == 0
    assert [row["generator"] for row in planted] == list(memorisation.PLANTED)
    shares = [row["nearer_train"] for row in planted]
    assert (
        control["nearer_train"] <= shares[0] <= shares[1] <= shares[2]
        and planted[2]["least_ratio"] < control["least_ratio"]
    )
    assert [row["n_fake"] for row in planted] == [control["n_fake"]] * 3
    assert [row["n_copies"] for row in planted] == [max(1, round(x * control["n_fake"])) for x in (0.05, 0.1, 0.2)]


def test_planted_copies_are_known_patches_in_the_orientations_asked_for():
    patches = textured(40, 0)
    for turns in (1, 8):
        copies = memorisation.planted(patches, 20, turns, seed=0)
        near = memorisation.Indexed(SPACE, patches, turns).nearest(small(copies))
        assert copies.dtype == np.uint8 and len(set(near.row)) == 20 and near.distance.max() < 130
        assert (set(near.turn) == {0}) == (turns == 1)
        originals = np.stack([oriented(patches[i][None], t)[0] for i, t in zip(near.row, near.turn)])
        ratio = copies.mean((1, 2, 3)) / originals.mean((1, 2, 3))
        assert 0.94 < ratio.min() < 1 < ratio.max() < 1.06


def test_a_fifth_of_copies_is_found_among_enough_patches():
    n, turns = 300, 8
    train, new = memorisation.Indexed(SPACE, textured(n, 0), turns), memorisation.Indexed(SPACE, textured(n, 1), turns)
    baseline, fresh = train.nearest(new.features[:n]).distance, textured(n, 2)
    copies = memorisation.planted(textured(n, 0), n // 5, turns, seed=0)
    p = []
    for samples in (fresh, np.concatenate([copies, fresh[len(copies) :]])):
        found = small(samples)
        p.append(compare(train.nearest(found), new.nearest(found), baseline, n)["nearer_train_p"])
    assert p[0] > 0.05 > p[1]
