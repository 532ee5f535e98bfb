"""Every profile that comes with the package loads; wrong ones are refused in one sentence."""

import pytest
import torch
import yaml
from conftest import settings

from pcamlib.core import strict_yaml
from pcamlib.core.errors import StudyError
from pcamlib.core.precision import number_format
from pcamlib.core.settings import load_profile, profile_names, resolve_parameter


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
    assert (c.epochs, c.learning_rate, c.batch_size, c.momentum, c.weights) == (100, 1e-4, 32, 0.9, "imagenet")
    assert (c.architecture, c.image_size, c.schedule) == ("resnet18.tv_in1k", 96, "constant")


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"epoch": 3}, "the key 'epoch' is unknown"),
        ({"classifier.epoch": 3}, "'classifier.epoch' is unknown: did you mean 'epochs'"),
        (
            {"pool": {"autoencoder_epochs": 1, "epoch": 1, "epochs": 1}},
            "'pool.epoch' is unknown: did you mean 'epochs'",
        ),
        ({"classifier.augmentation.rotatoin": "any"}, "did you mean 'rotation'"),
        ({"classifier.epochs": 0}, "'classifier.epochs' is 0"),
        ({"classifier.epochs": "many"}, "'classifier.epochs' is 'many'"),
        ({"selection.candidates": 0.5}, "'selection.candidates' is 0.5"),
        ({"quality.judge.architecture": "tf_efficientnet_lite0"}, "judge.architecture must not be the classifier's"),
        ({"diffusion.label_dropout": 0}, "needs label_dropout above 0"),
        ({"classifier.epochs": True}, "'classifier.epochs' is True: yes, no, on, off, true and false are truth values"),
        ({"diffusion.guidance": True}, "'diffusion.guidance' is True: .* a number or text is due here"),
        ({"autoencoder.patchify": True}, "'autoencoder.patchify' is True"),
        ({"autoencoder.block_channels": [True, 32]}, "'autoencoder.block_channels' is .True, 32.: .* truth values"),
        (
            {"classifier.learning_rate": float("inf")},
            "'classifier.learning_rate' is inf: input should be a finite number",
        ),
        (
            {"classifier.learning_rate": "1e999"},
            "'classifier.learning_rate' is '1e999': input should be a finite number",
        ),
        ({"selection.candidates": float("inf")}, "'selection.candidates' is inf: input should be a finite number"),
        ({"diffusion.guidance": float("nan")}, "'diffusion.guidance' is nan"),
        (
            {"quality.timm": [{"architecture": "a", "weights": "b", "weigts": "c"}]},
            "'quality.timm.0.weigts' is unknown: did you mean 'weights'",
        ),
        ({"curves": {"sizes": [8], "ratios": [1], "size": 1}}, "'curves.size' is unknown: did you mean 'sizes'"),
    ],
)
def test_a_wrong_value_is_named(tmp_path, changes, message):
    path = tmp_path / "p.yml"
    path.write_text(yaml.safe_dump(settings(**changes)))
    with pytest.raises(StudyError, match=message) as caught:
        load_profile(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


MARKED = {"diffusion.timesteps": 123, "diffusion.guidance": 1.25, "classifier.learning_rate": 0.0125}


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "  timesteps: 123\n",
            "  timesteps: 123\n  timesteps: 400\n",
            "the key 'timesteps' stands in line {0} and again in line {1}: remove one",
        ),
        (
            "seed: 0\nselection:\n",
            "seed: 0\n'seed': 1\nselection:\n",
            "the key 'seed' stands in line {0} and again in line {1}",
        ),
        (
            "timesteps: 123\n",
            "timesteps: 010\n",
            "the number 010 in line {0} is not decimal .YAML 1.1 reads it as 8.: write a decimal",
        ),
        (
            "timesteps: 123\n",
            "timesteps: 1:30\n",
            "the number 1:30 in line {0} is not decimal .YAML 1.1 reads it as 90.",
        ),
        (
            "guidance: 1.25\n",
            "guidance: 1:30.5\n",
            "the number 1:30.5 in line {0} is not decimal .YAML 1.1 reads it as 90.5.",
        ),
        ("timesteps: 123\n", "timesteps: 0x10\n", "the number 0x10 in line {0} is not decimal"),
        ("timesteps: 123\n", "timesteps: yes\n", "'diffusion.timesteps' is True: yes, no, on, off"),
        ("guidance: 1.25\n", "guidance: off\n", "'diffusion.guidance' is False: yes, no, on, off"),
        ("rate: 0.0125\n", "rate: .inf\n", "'classifier.learning_rate' is inf: input should be a finite"),
    ],
)
def test_what_yaml_1_1_reads_in_its_own_way_is_refused_with_its_line(tmp_path, old, new, message):
    text = yaml.safe_dump(settings(**MARKED))
    before, found, after = text.partition(old)
    assert found and old not in after
    path = tmp_path / "p.yml"
    path.write_text(before + new + after)
    line = before.count("\n") + 1
    with pytest.raises(StudyError, match=message.format(line, line + 1)) as caught:
        load_profile(str(path))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_what_a_profile_may_still_say(tmp_path):
    path = tmp_path / "p.yml"
    text = yaml.safe_dump(settings(**MARKED)).replace("pca_shortcut: true", "pca_shortcut: yes")
    path.write_text(text.replace("rate: 0.0125\n", "rate: 1e-4\n").replace("timesteps: 123\n", "timesteps: 1_000\n"))
    found = load_profile(str(path))
    assert found.autoencoder.pca_shortcut is True and found.classifier.learning_rate == 1e-4
    assert found.diffusion.timesteps == 1000
    path.write_text("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\n")
    assert strict_yaml.load(path)["b"] == {"x": 3, "y": 2}, "what a merge key brings may be overridden"


@pytest.mark.parametrize("value", [2024, None, True, b"x"])
def test_a_path_or_profile_that_is_not_text(value):
    with pytest.raises(StudyError, match="^data_root must be text, got"):
        resolve_parameter("data_root", value)
    with pytest.raises(StudyError, match="^profile must be text"):
        load_profile(value)


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

    assert sha() == sha(budget="another") == sha(**{"diffusion.sampling_precision": "fp32"})
    assert sha() != sha(**{"diffusion.sampling_precision": "bf16"})
    assert len({sha(), sha(seed=1), sha(**{"classifier.epochs": 2}), sha(threads=2)}) == 4


def test_auto_precision_is_bf16_only_where_the_device_has_it(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    for known, expected in (({"avx512_bf16": False}, "fp32"), ({"avx512_bf16": True}, "bf16"), ({}, "fp32")):
        number_format.cache_clear()
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda known=known: known)
        assert number_format("auto") == expected
        assert number_format("bf16") == "bf16" and number_format("fp32") == "fp32"
    number_format.cache_clear()
