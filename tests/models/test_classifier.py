"""The classifier: weights that are never silent, its own scale and size, model choice, transfer."""

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from pcamlib.core.errors import StudyError
from pcamlib.data import Arrays
from pcamlib.models import classifier
from pcamlib.models.weights import load_package


def test_prepare_averages_areas():
    images = np.random.default_rng(0).integers(0, 256, (3, 96, 96, 3), dtype=np.uint8)
    half = classifier.prepare(images, 48)
    assert half.shape == (3, 3, 48, 48) and half.dtype == torch.uint8
    block = images[1, 10:12, 20:22, 2].astype(float).mean()
    assert abs(float(half[1, 2, 5, 10]) - block) <= 0.5
    assert classifier.prepare(half, 48) is half


RESNET = {"classifier.architecture": "resnet18.tv_in1k", "classifier.image_size": 32}


@pytest.fixture
def resnet(open_tiny):
    """resnet(weights) -> the classifier section of a profile with a ResNet18 that starts from them."""
    settings = open_tiny(**RESNET).profile.classifier
    return lambda weights: settings.model_copy(update={"weights": str(weights)})


@pytest.fixture
def weights():
    torch.manual_seed(5)
    return timm.create_model("resnet18", num_classes=1000).state_dict()


@pytest.mark.parametrize("suffix", ["safetensors", "pth"])
def test_weights_by_path_are_loaded_but_for_the_head(tmp_path, weights, suffix, resnet):
    path = tmp_path / f"resnet18.{suffix}"
    (save_file if suffix == "safetensors" else torch.save)(weights, path)
    model = classifier.build(resnet(path))
    assert torch.equal(model.conv1.weight, weights["conv1.weight"]) and model.fc.weight.shape == (1, 512)


def test_weights_that_are_not_there_are_never_replaced(tmp_path, weights, resnet):
    with pytest.raises(StudyError, match="classifier.weights: .*none.safetensors does not exist"):
        classifier.build(resnet(tmp_path / "none.safetensors"))
    wrong = tmp_path / "wrong.safetensors"
    save_file({"a": torch.zeros(1)}, wrong)
    with pytest.raises(StudyError, match="does not hold resnet18"):
        classifier.build(resnet(wrong))
    wrong.write_bytes(b"nonsense")
    with pytest.raises(StudyError, match="does not hold resnet18"):
        classifier.build(resnet(wrong))
    with pytest.raises(StudyError, match="not for 'resnet18.tv_in1k'"):
        classifier.build(resnet("package"))


def test_imagenet_without_network_or_cache_is_an_error(tmp_path, monkeypatch, resnet):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with pytest.raises(StudyError, match="ImageNet weights resnet18.tv_in1k could not be loaded.*'none'"):
        classifier.build(resnet("imagenet"))


def test_packaged_weights_keep_their_body_and_draw_their_head_from_the_seed(open_tiny):
    settings = open_tiny().profile.classifier
    assert (settings.architecture, settings.weights) == ("tf_efficientnet_lite0", "package")
    models = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        models.append(classifier.build(settings))
    one, again, other = (model.classifier.weight for model in models)
    assert one.shape == (1, 1280) and torch.equal(one, again) and not torch.equal(one, other)
    original = load_package("tf_efficientnet_lite0").state_dict()
    assert all(torch.equal(v, original[k]) for k, v in models[0].state_dict().items() if not k.startswith("classifier"))


def test_inputs_are_scaled_as_the_network_was_pretrained(open_tiny):
    x = torch.rand(2, 3, 8, 8)
    scaled = classifier.normalise(x, classifier.own_scale(classifier.build(open_tiny().profile.classifier)))
    assert (scaled - (x - 0.5) / 0.5).abs().max() < 1e-6
    model = timm.create_model("resnet18.tv_in1k", pretrained=False)
    assert tuple(map(tuple, classifier.own_scale(model))) == classifier.IMAGENET


def test_a_transformer_is_built_for_the_profiles_size(open_tiny, patches):
    changes = {"classifier.architecture": "vit_tiny_patch16_224", "classifier.weights": "none"}
    settings = open_tiny(**changes).profile.classifier
    model = classifier.build(settings)
    assert model.patch_embed.img_size == (32, 32)
    assert classifier.probabilities(model, patches.images[:3], settings).shape == (3,)


def train(open_tiny, patches, folder, **options):
    changes = {"classifier.epochs": 4, "classifier.learning_rate": 0.02, "classifier.precision": "fp32"}
    changes |= RESNET | {"classifier.weights": "none"} | options.pop("changes", {})
    settings = open_tiny(**changes).profile.classifier
    train, valid = Arrays(*(a[:128] for a in patches)), Arrays(*(a[128:] for a in patches))
    return settings, valid, classifier.train(settings, train, valid, folder=folder, seed=0, **options)


def test_it_learns_resumes_its_choice_and_transfers(open_tiny, patches, tmp_path):
    settings, valid, (model, chosen, log) = train(
        open_tiny, patches, tmp_path / "a", changes={"classifier.model_choice": "best-valid-auc"}
    )
    aucs = [row["valid_auc"] for row in log]
    assert max(aucs) > 0.9 and aucs[chosen - 1] == max(aucs)
    scores = classifier.probabilities(model, valid.images, settings)
    from pcamlib import metrics

    assert metrics.classification_metrics(valid.labels, scores)["auc"] == pytest.approx(max(aucs), abs=1e-6)
    loaded = classifier.load(tmp_path / "a" / "weights.safetensors", settings)
    np.testing.assert_array_equal(scores, classifier.probabilities(loaded, valid.images, settings))
    assert classifier.penultimate(loaded, valid.images, settings).shape == (64, 512)
    start = tmp_path / "a" / "weights.safetensors"
    train_set = Arrays(*(a[:128] for a in patches))
    _, last, tuned = classifier.train(settings, train_set, valid, folder=tmp_path / "b", seed=0, start=start, epochs=1)
    assert last == 1 and tuned[0]["loss"] < log[0]["loss"]


def test_every_arm_starts_from_the_same_weights(open_tiny, patches, tmp_path, monkeypatch):
    starts = []

    def fit(task, **_):
        task.accelerator = classifier.training.accelerator("fp32")
        starts.append(task.modules["classifier"].conv1.weight.clone())
        return [{}]

    monkeypatch.setattr(classifier.training, "fit", fit)
    for name in "ab":
        train(open_tiny, patches, tmp_path / name)
    assert torch.equal(*starts)
