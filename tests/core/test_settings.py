"""Every profile that comes with the package loads; wrong ones are refused in one sentence."""

import pytest
import torch
import yaml
from conftest import settings

from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile, number_format, profile_names


def test_the_named_profiles_load():
    assert {"smoke", "demo", "slice", "reference", "paper"} <= set(profile_names())
    for name in profile_names():
        assert load_profile(name).name == name


def test_the_paper_profile_is_the_papers_protocol():
    p = load_profile("paper")
    assert (p.subsets.count, p.subsets.size, p.subsets.fraction) == (5, None, 0.1)
    for family in (p.autoencoder, p.diffusion, p.histogan):
        assert (family.epochs, family.learning_rate, family.batch_size) == (1000, 1e-4, 64)
    c = p.classifier
    assert (c.epochs, c.learning_rate, c.batch_size, c.momentum, c.pretrained) == (100, 1e-4, 32, 0.9, "imagenet")
    assert (c.image_size, c.schedule) == (96, "constant")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epoch": 3}, "the key 'epoch' is unknown"),
        ({"classifier.epoch": 3}, "'classifier.epoch' is unknown: did you mean 'epochs'"),
        ({"classifier.augmentation.rotatoin": "any"}, "did you mean 'rotation'"),
        ({"classifier.epochs": 0}, "'classifier.epochs' is 0"),
        ({"classifier.epochs": "many"}, "'classifier.epochs' is 'many'"),
        ({"selection.candidates": 0.5}, "'selection.candidates' is 0.5"),
        ({"diffusion.label_dropout": 0}, "needs label_dropout above 0"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, changes, message):
    path = tmp_path / "p.yml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    with pytest.raises(StudyError, match=message) as caught:
        load_profile(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_missing_key_unknown_name_and_broken_files(tmp_path):
    content = settings()
    del content["classifier"]["epochs"]
    path = tmp_path / "p.yml"
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(StudyError, match="'classifier.epochs' is missing"):
        load_profile(str(path))
    with pytest.raises(StudyError, match="did you mean 'smoke'"):
        load_profile("smok")
    with pytest.raises(StudyError, match="does not exist"):
        load_profile(str(tmp_path / "none.yml"))
    for text, message in {"a: [": "not valid YAML", "- 1": "must be a mapping"}.items():
        path.write_text(text)
        with pytest.raises(StudyError, match=message):
            load_profile(str(path))


def test_the_hash_ignores_the_budget_and_nothing_else(tmp_path):
    def sha(**changes):
        path = tmp_path / "p.yml"
        path.write_text(yaml.safe_dump(settings(**changes)))
        return load_profile(str(path)).sha

    assert sha() == sha(budget="another")
    assert len({sha(), sha(seed=1), sha(**{"classifier.epochs": 2}), sha(threads=2)}) == 4


def test_auto_precision_is_bf16_only_where_the_device_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for known, expected in (({"avx512_bf16": False}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({}, "fp32")):
        number_format.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert number_format("auto") == expected
        assert number_format("bf16") == "bf16" and number_format("fp32") == "fp32"
    number_format.cache_clear()
