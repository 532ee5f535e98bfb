"""The label of the demo's phantom: colour and texture say little about it, the study's classifier reads it."""

from __future__ import annotations

from functools import cache

import pytest

from pcamlib import metrics
from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile
from pcamlib.data import Arrays, pcam, phantom
from pcamlib.experiments import baselines, features
from pcamlib.models import classifier, regression, weights

LITE0 = "tf_efficientnet_lite0"
DEMO = load_profile("demo")


@cache
def patches(split):
    """All patches of a split of the demo's phantom."""
    images, labels, _ = phantom.generate(getattr(DEMO.phantom, split), DEMO.phantom.seed, split)
    return Arrays(images, labels)


def subset(n, k=0):
    """Subset k of n train patches, drawn as the study draws it."""
    images, labels = patches("train")
    rows = pcam.subsets(labels, n=k + 1, size=n, seed=DEMO.subsets.seed)[k]
    return Arrays(images[rows], labels[rows])


def auc(probabilities):
    return metrics.classification_metrics(patches("test").labels, probabilities)["auc"]


@cache
def held_out(space, split):
    """The features of a split that every regression is chosen or measured on."""
    return space(patches(split).images)


def by_regression(space, train):
    """Test AUC of logistic regression on a feature space, its strength chosen on validation."""
    seen, valid, test = space(train.images), held_out(space, "valid"), held_out(space, "test")
    scale = regression.standard(seen)
    fitted = regression.choose((scale(seen), train.labels), (scale(valid), patches("valid").labels))
    return auc(fitted(scale(test)))


@pytest.fixture
def imagenet():
    try:
        weights.package_file(LITE0)
    except StudyError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("space", "limit"), [(baselines.colour, 0.75), (baselines.texture, 0.80)])
@pytest.mark.parametrize("k", [0, 1])
def test_colour_and_texture_say_little_about_the_label(space, limit, k):
    assert 0.5 < by_regression(space, subset(256, k)) < limit


def test_frozen_features_say_more_than_colour(imagenet):
    lite0 = features.frozen(LITE0, "package", 96, "probe")
    assert by_regression(lite0, subset(256)) > by_regression(baselines.colour, subset(256)) + 0.05


@pytest.mark.torture
def test_fine_tuning_reads_the_label_and_gains_from_more_patches(imagenet, tmp_path):
    changes = {"architecture": LITE0, "weights": "package", "image_size": 96, "epochs": 10}
    settings = DEMO.classifier.model_copy(update=changes)

    def fine_tuned(n):
        train, folder = subset(n), tmp_path / str(n)
        model, _, _ = classifier.train(settings, train, patches("valid"), folder=folder, seed=0)
        return auc(classifier.probabilities(model, patches("test").images, settings))

    few, many = fine_tuned(256), fine_tuned(512)
    assert 0.82 < few < 0.95
    assert many > few + 0.01
