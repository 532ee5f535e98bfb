"""The pipeline that leaves a study: what it takes, what it refuses, and that its files are only weights."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.settings import load_profile
from pcamlib.models import diffusion
from pcamlib.models.pipeline import PatchDecoder, PatchPipeline

LABELS = [0, 1]


def untrained(backbone="unet"):
    profile = load_profile("smoke")
    torch.manual_seed(0)
    decoder = PatchDecoder(profile.autoencoder.model_dump(), 4, 12)
    decoder.range.copy_(torch.tensor([[-3.0] * 4, [3.0] * 4]))
    s = profile.diffusion
    denoiser = diffusion.build(s, "dit" if backbone == "dit" else "unet", 4, 12)
    process = "flow" if backbone == "flow" else "diffusion"
    return PatchPipeline(denoiser.eval(), decoder.eval(), s.timesteps, s.sampler, s.sampling_steps, s.guidance, process)


@pytest.fixture(scope="module")
def pipe():
    return untrained()


def test_every_integer_type_is_the_same_seed(pipe):
    expected = pipe(LABELS, seed=7)
    for seed in (np.int64(7), np.uint8(7), torch.tensor(7)):
        np.testing.assert_array_equal(pipe(LABELS, seed=seed), expected)
    assert not np.array_equal(pipe(LABELS, seed=8), expected)
    for seed in (7.0, "7", None):
        with pytest.raises(StudyError, match=f"seed is {re.escape(repr(seed))}: give an integer"):
            pipe(LABELS, seed=seed)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "nope"}, "sampler 'nope' is unknown: it is one of ddpm, dpm-solver"),
        ({"sampler": "DDPM"}, "sampler 'DDPM' is unknown"),
        ({"steps": 0}, "steps is 0: this model was trained with 100"),
        ({"steps": -3}, "steps is -3"),
        ({"steps": 101}, "steps is 101"),
        ({"steps": 2.5}, "steps is 2.5: give an integer"),
        ({"guidance": float("nan")}, "guidance is nan: give a finite number"),
        ({"guidance": float("inf")}, "guidance is inf"),
        ({"guidance": "1"}, "guidance is '1'"),
    ],
)
def test_an_option_that_cannot_be_is_refused(pipe, options, message):
    with pytest.raises(StudyError, match=message):
        pipe(LABELS, **options)


@pytest.mark.parametrize("options", [{"steps": 1}, {"steps": 100}, {"steps": 3, "sampler": "ddpm"}, {"guidance": 0.0}])
def test_options_within_their_range_change_the_patches(pipe, options):
    found = pipe(LABELS, **options)
    assert found.shape == (2, 96, 96, 3) and not np.array_equal(found, pipe(LABELS))


def test_half_precision_is_refused_and_float32_works_again():
    half = untrained().to(torch.float16)
    with pytest.raises(StudyError, match="is in torch.float16 and computes in torch.float32"):
        half(LABELS)
    assert half.to(torch.float32)(LABELS).shape == (2, 96, 96, 3)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"sampler": "ddpm"}, "sampler is 'ddpm': a flow is followed by Euler's method"),
        ({"steps": 0}, "steps is 0: give 1 or more"),
        ({"steps": 2.5}, "steps is 2.5: give an integer"),
        ({"guidance": float("nan")}, "guidance is nan: give a finite number"),
        ({"seed": "7"}, "seed is '7': give an integer"),
    ],
)
def test_a_flow_takes_its_own_options(options, message):
    pipe = untrained("flow")
    with pytest.raises(StudyError, match=message):
        pipe(LABELS, **options)
    assert not np.array_equal(pipe(LABELS, steps=2), pipe(LABELS, steps=3))
    with pytest.raises(StudyError, match="process is 'gan'"):
        PatchPipeline(pipe.denoiser, pipe.decoder, process="gan")


@pytest.mark.parametrize("backbone", ["unet", "dit", "flow"])
def test_it_saves_and_loads_and_takes_no_path_along(tmp_path, backbone):
    first = untrained(backbone)
    first.save_pretrained(tmp_path / "here")
    loaded = PatchPipeline.from_pretrained(tmp_path / "here")
    np.testing.assert_array_equal(first(LABELS), loaded(LABELS))
    loaded.save_pretrained(tmp_path / "there")
    for path in (tmp_path / "there").rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


class Payload:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("part", ["denoiser", "decoder"])
@pytest.mark.parametrize("options", [{}, {"use_safetensors": False}])
def test_no_pickle_takes_the_place_of_weights(tmp_path, part, options):
    untrained().save_pretrained(tmp_path / "pipe")
    (weights,) = (tmp_path / "pipe" / part).glob("*.safetensors")
    weights.unlink()
    with open(weights.with_suffix(".bin"), "wb") as f:
        pickle.dump(Payload(tmp_path / "ran"), f)
    with pytest.raises(OSError, match="safetensors"):
        PatchPipeline.from_pretrained(tmp_path / "pipe", **options)
    assert not (tmp_path / "ran").exists()
