"""Named extractors: uint8 in, the right weights, the right refusals; the judge is not the gatekeeper."""

import hashlib

import numpy as np
import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from pcamlib import metrics
from pcamlib.core.errors import StudyError
from pcamlib.experiments import classification, features
from pcamlib.models import weights


def test_random_vgg_is_the_same_every_time_and_refuses_floats(patches):
    state = torch.random.get_rng_state()
    one, two = features.random_vgg16(), features.random_vgg16()
    assert torch.equal(state, torch.random.get_rng_state()), "building it must not disturb other randomness"
    a, b = one(patches.images[:5]), two(patches.images[:5])
    assert a.shape == (5, 512) and a.dtype == np.float32
    np.testing.assert_array_equal(a, b)
    assert np.unique(a, axis=0).shape[0] == 5
    with pytest.raises(ValueError, match="must be uint8"):
        one(patches.images[:5].astype(np.float32))


def test_the_judge_is_one_network_for_all_subsets_and_learns_labels_outside_them(open_tiny, patches):
    first, second = open_tiny(subset=0), open_tiny(subset=1)
    assert not set(first.judge_rows) & (set(first.rows) | set(second.rows)) and len(first.judge_rows) == 32
    assert np.array_equal(first.judge_rows, second.judge_rows)
    one, two = features.judge(first), features.judge(second)
    assert one.extractor.name == two.extractor.name == "judge-tf_efficientnet_lite2"
    assert (
        "lite2-9656183e.pth, SHA-256 9656183eaeafe8cb; bicubic to 40 px, mean and sd 0.5 and 0.5" in one.extractor.about
    )
    np.testing.assert_array_equal(one.extractor(first.real.images[:4]), two.extractor(first.real.images[:4]))
    verdict = one.predict(patches.images[160:])
    np.testing.assert_array_equal(verdict, two.predict(patches.images[160:]))
    assert metrics.classification_metrics(patches.labels[160:], verdict)["auc"] > 0.9, "the patches are easy"


def test_the_judge_asks_its_network_once_for_features_and_verdict(open_tiny, patches, monkeypatch):
    judge = features.judge(open_tiny())
    judge.predict(patches.images[:8])
    asked = []
    monkeypatch.setattr(features.F, "interpolate", lambda x, **_: asked.append(len(x)) or x[:, :, :32, :32])
    judge.extractor(patches.images[:8])
    judge.predict(patches.images[:8])
    assert asked == [], "the verdict's features are remembered"
    judge.extractor(patches.images[8:12])
    assert asked == [4]


def test_without_rows_left_the_judge_learns_on_validation(open_tiny, patches):
    s = open_tiny(**{"subsets.size": 64})
    assert len(s.judge_rows) == 0 and features.judge(s).predict(patches.images[:4]).shape == (4,)


def test_the_gatekeeper_is_the_subsets_own_classifier(open_tiny):
    s = open_tiny()
    with pytest.raises(StudyError, match="07_classification.md .generator real. for subset 0 first"):
        features.gatekeeper(s)
    classification.evaluate(s, "real")
    extractor = features.gatekeeper(s)
    assert extractor.name == "gatekeeper-tf_efficientnet_lite0"
    assert extractor(s.real.images[:3]).shape == (3, 1280)
    assert "arm 'traditional', subset 0, epoch 1; area-averaged to 32 px, mean and sd 0.5 and 0.5" in extractor.about


def test_inception_is_only_what_it_claims_to_be(tmp_path, monkeypatch, patches):
    with pytest.raises(StudyError, match="does not exist: get weights-inception"):
        features.inception(str(tmp_path / "none.pth"))
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(StudyError, match="does not exist"):
        features.inception("cache")
    path = tmp_path / "wrong.pth"
    path.write_bytes(b"something else")
    with pytest.raises(StudyError, match="SHA-256 differs"):
        features.inception(str(path))


def test_inception_loads_weights_of_the_published_layout(tmp_path, monkeypatch, patches):
    """The real loading code, on weights of our own in torch-fidelity's layout (the published ones are not in git)."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    kept = {}
    original = fidelity.FeatureExtractorInceptionV3.load_state_dict
    monkeypatch.setattr(fidelity, "load_state_dict_from_url", lambda *a, **k: {})
    monkeypatch.setattr(
        fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: kept.update(self.state_dict())
    )
    torch.manual_seed(0)
    fidelity.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    monkeypatch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", original)
    path = tmp_path / "own.pth"
    torch.save(kept, path)
    monkeypatch.setattr(features, "INCEPTION_SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    extractor = features.inception(str(path))
    out = extractor(patches.images[:2])
    assert out.shape == (2, 2048) and out.dtype == np.float32 and np.isfinite(out).all()


def test_what_goes_into_each_network_is_what_about_says(open_tiny, patches, monkeypatch):
    """Area-averaged, 0..1, ImageNet's mean and sd; and nothing but uint8."""
    extractor = features.random_vgg16()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(features.JUDGE_SEED)
        model = torchvision.models.vgg16(weights=None).features.eval()
    x = torch.from_numpy(patches.images[:4]).permute(0, 3, 1, 2).float()
    x = x.reshape(4, 3, 48, 2, 48, 2).mean((3, 5)).round() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        expected = model(x).mean((2, 3)).numpy()
    np.testing.assert_allclose(extractor(patches.images[:4]), expected, rtol=1e-4, atol=1e-6)
    assert "area-averaged to 48 px, ImageNet mean and sd" in extractor.about and "512-d" in extractor.about
    for bad in (patches.images[:2] / 255, patches.images[:2, :48], patches.images[0]):
        with pytest.raises(ValueError, match="^vgg16-random: images must be uint8"):
            extractor(bad)


def test_any_timm_model_judges_with_weights_by_path(tmp_path, open_tiny, patches):
    torch.manual_seed(1)
    original = timm.create_model("resnet10t", pretrained=False)
    path = tmp_path / "own.safetensors"
    save_file(original.state_dict(), path)
    s = open_tiny(**{"quality.timm": [{"architecture": "resnet10t", "weights": str(path)}]})
    spaces = features.judges(s)
    assert [space.name for space in spaces] == ["judge-tf_efficientnet_lite2", "vgg16-random", "timm-resnet10t"]
    x = torch.from_numpy(patches.images[:3]).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, size=(176, 176), mode="bicubic", antialias=True).clamp(0, 1)
    mean, std = (torch.tensor(original.default_cfg[key]).view(3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        expected = original.eval().forward_head(original.forward_features((x - mean) / std), pre_logits=True)
    np.testing.assert_allclose(spaces[-1](patches.images[:3]), expected.numpy(), rtol=1e-4, atol=1e-5)
    assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in spaces[-1].about and "176 px" in spaces[-1].about


def test_timm_weights_that_are_not_there_or_not_these_are_refused(tmp_path):
    with pytest.raises(StudyError, match="quality.timm: 'resnet999' is not a timm model"):
        features.frozen("resnet999", "imagenet", None, "quality.timm")
    with pytest.raises(StudyError, match="quality.timm.weights: weights file .* does not exist"):
        features.frozen("resnet10t", str(tmp_path / "none.safetensors"), None, "quality.timm")
    path = tmp_path / "other.safetensors"
    save_file(timm.create_model("regnetx_002", pretrained=False).state_dict(), path)
    with pytest.raises(StudyError, match="quality.timm.weights: .* does not hold resnet10t weights"):
        features.frozen("resnet10t", str(path), None, "quality.timm")
    with pytest.raises(StudyError, match="quality.timm: ImageNet weights resnet10t.* could not be loaded") as error:
        features.frozen("resnet10t.c3_in1k", "imagenet", None, "quality.timm")
    assert "classifier" not in str(error.value) and "none" not in str(error.value)


def test_features_of_chosen_layers_are_moments_of_their_maps(patches):
    space = features.frozen("tf_efficientnet_lite0", "package", 64, "probe", layers=[2, 6])
    model = weights.load_package("tf_efficientnet_lite0").eval()
    x = torch.from_numpy(patches.images[:3]).permute(0, 3, 1, 2).float() / 255
    x = torch.nn.functional.interpolate(x, size=(64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    with torch.no_grad():
        x, expected = model.bn1(model.conv_stem(x * 2 - 1)), []
        for i, block in enumerate(model.blocks[:6]):
            x = block(x)
            if i in (1, 5):
                expected += [x.mean((2, 3)), x.std((2, 3))]
    np.testing.assert_allclose(space(patches.images[:3]), torch.cat(expected, 1).numpy(), rtol=1e-3, atol=1e-4)
    assert "mean and sd of maps 2, 6, 432-d" in space.about


def test_layers_that_are_not_there_are_refused():
    with pytest.raises(StudyError, match=r"probe.layers: \[2, 60\] are not all layers of tf_efficientnet_lite0"):
        features.frozen("tf_efficientnet_lite0", "none", 64, "probe", layers=[2, 60])
