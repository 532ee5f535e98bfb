"""Subsets of whole slides: disjoint, balanced, of the size that is asked for, or one sentence."""

import numpy as np
import pytest

from pcamlib import data
from pcamlib.core.errors import StudyError


def slides(count=120, patches=40, seed=0):
    """Labels and slide ids of slides of very unequal size and tumour share."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(rng.lognormal(np.log(patches), 0.7, count).astype(int), 2)
    groups = np.repeat(np.arange(count), sizes)
    labels = (rng.random(len(groups)) < rng.beta(0.5, 0.5, count)[groups]).astype(np.uint8)
    order = rng.permutation(len(groups))
    return labels[order], groups[order]


@pytest.mark.parametrize("seed", range(10))
def test_no_slide_is_in_two_subsets_and_counts_are_near(seed):
    labels, groups = slides()
    found = data.slide_subsets(labels, groups, n=5, fraction=0.1, seed=seed)
    rows = np.concatenate(found)
    assert len(found) == 5 and len(np.unique(rows)) == len(rows)
    for part in found:
        assert (np.diff(part) > 0).all() and part.dtype == np.int64
        assert set(np.flatnonzero(np.isin(groups, groups[part]))) == set(part), "whole slides"
        assert abs(len(part) / (0.1 * len(labels)) - 1) < 0.1
        assert abs(labels[part].mean() - labels.mean()) < 0.05
    assert len(set.intersection(*(set(groups[part]) for part in found))) == 0
    again = data.slide_subsets(labels, groups, n=5, fraction=0.1, seed=seed)
    assert all(np.array_equal(a, b) for a, b in zip(found, again))


def test_slides_are_drawn_whatever_their_size():
    labels, groups = slides()
    sizes, seen = np.bincount(groups), np.zeros(len(np.unique(groups)))
    for seed in range(60):
        for part in data.slide_subsets(labels, groups, n=2, fraction=0.2, seed=seed):
            seen[np.unique(groups[part])] += 1
    large = sizes >= np.quantile(sizes, 0.75)
    assert seen[large].mean() == pytest.approx(seen[~large].mean(), rel=0.15), "0.4 of 60 draws each"


def test_a_whole_split_can_be_dealt_out():
    labels, groups = slides(40)
    found = data.slide_subsets(labels, groups, n=4, size=len(labels) // 4)
    assert sorted(np.concatenate(found)) == list(range(len(labels)))


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"n": 200, "size": 1}, "200 subsets of 1 patches and of whole slides do not fit: .* of 120 slides; ask for"),
        ({"n": 3, "fraction": 0.5}, "3 subsets of .* do not fit"),
        ({"n": 2, "size": 2}, "would hold .* where 2 are asked for: the slides are too large"),
    ],
)
def test_subsets_that_slides_cannot_make(options, sentence):
    with pytest.raises(StudyError, match=sentence):
        data.slide_subsets(*slides(), **options)


def test_a_subset_that_would_lack_a_class():
    labels, groups = np.repeat([0, 0, 0, 1], 10), np.repeat([0, 1, 2, 3], 10)
    with pytest.raises(StudyError, match="would hold .* patches, 0 of class 1, where 20 are asked for"):
        data.slide_subsets(labels, groups, n=2, fraction=0.5)
