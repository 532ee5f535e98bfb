"""Number format and layout: measured once, kept, and not measured again."""

import pooch
import pytest
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.models import formats
from pcamlib.models.formats import Format


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr(pooch, "os_cache", lambda name: tmp_path / name)
    formats._chosen.cache_clear()
    yield tmp_path / "pcamlib" / "formats.json"
    formats._chosen.cache_clear()


def test_the_fastest_format_is_kept(cache, monkeypatch, open_tiny):
    monkeypatch.setattr(formats, "number_format", lambda precision: "bf16")
    asked = []

    def measure(architecture, size, batch, candidates):
        asked.append(candidates)
        return {form: 0.1 if form == Format("bf16", "contiguous") else 0.2 for form in candidates}

    monkeypatch.setattr(formats, "measure", measure)
    settings = open_tiny(**{"classifier.precision": "auto"}).profile.classifier
    for _ in range(2):
        assert formats.chosen(settings) == Format("bf16", "contiguous")
        formats._chosen.cache_clear()  # as in another process
    (kept,) = read_json(cache).values()
    assert len(asked) == 1 and len(asked[0]) == 4
    assert kept["images_per_second"]["bf16, contiguous"] == 10 * settings.batch_size
    explicit = settings.model_copy(update={"precision": "fp32"})
    assert formats.chosen(explicit).precision == "fp32" and {form.precision for form in asked[1]} == {"fp32"}


def test_measuring_disturbs_no_randomness_and_tells_fast_from_slow(open_tiny, monkeypatch):
    state = torch.random.get_rng_state()
    slow, fast = Format("fp32", "contiguous"), Format("fp32", "channels_last")
    times = {slow: iter([9.0, 3.0]), fast: iter([9.0, 1.0, 0.5, 0.7, 0.8])}
    monkeypatch.setattr(formats, "_step", lambda model, x, form: next(times[form]))
    found = formats.measure("resnet10t", 32, 2, [slow, fast])
    assert found == {slow: 3.0, fast: 0.5}, "the first step warms up; what is hopeless is not measured again"
    assert torch.equal(state, torch.random.get_rng_state())


def test_a_real_step_is_timed_in_every_format():
    candidates = [Format(precision, layout) for precision in ("fp32", "bf16") for layout in formats.LAYOUTS]
    assert all(seconds > 0 for seconds in formats.measure("resnet10t", 32, 2, candidates).values())


def test_a_cache_that_cannot_be_written_is_said(tmp_path, monkeypatch, open_tiny, cache):
    (tmp_path / "pcamlib").write_text("a file in the way")
    with pytest.raises(StudyError, match="formats.json cannot be written .*XDG_CACHE_HOME"):
        formats.chosen(open_tiny().profile.classifier)
