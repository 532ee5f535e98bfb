"""Regime B: the pool is learned once and without labels, subsets start from it, everything resumes."""

import itertools
import os
import traceback

import numpy as np
import pytest
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.files import read_json
from pcamlib.core.settings import load_profile
from pcamlib.models import autoencoder, diffusion, generators, pipeline, pooled
from pcamlib.models.diffusion import NULL, DiffusionTask
from pcamlib.training.progress import read_log
from pcamlib.workflow import export

CHANGES = {"generators": ["unet_pool"], "pool": {"autoencoder_epochs": 1, "epochs": 2}, "diffusion.epochs": 2}
LABELS = np.array([0, 1, 1])


@pytest.fixture
def opened(open_tiny):
    """open_tiny with this generator: a pool of 32 patches, two steps an epoch."""
    return lambda **changes: open_tiny(**CHANGES | changes)


def test_the_pool_is_outside_and_without_labels(opened, monkeypatch):
    s, seen = opened(), []
    forward = diffusion.Denoiser.forward

    def watched(self, x, t, labels):
        seen.append(labels)
        return forward(self, x, t, labels)

    monkeypatch.setattr(diffusion.Denoiser, "forward", watched)
    pool = pooled.pretrain(s)
    assert seen and all((labels == NULL).all() for labels in seen), "in training and in its sheets"
    assert pool.folder == s.root / "pool" == pooled.pool_of(opened(subset=1)).folder
    others = {*s.rows, *opened(subset=1).rows, *s.judge_rows}
    assert len(pool.rows) == 32 and not set(pool.rows) & others
    assert pool.seed == pooled.pool_of(opened(subset=1)).seed not in (s.seed, opened(subset=1).seed)
    assert [row["step"] for row in read_log(pool.folder / "unet")] == [2, 4]
    assert len(read_log(pool.folder / "autoencoder")) == 1
    count = len(seen)
    monkeypatch.setattr(autoencoder, "train", None)
    pooled.pretrain(opened(subset=1))
    assert len(seen) == count, "the second subset finds it finished"


def test_new_patches_are_new_to_what_has_seen_the_pool(opened, open_tiny):
    s, bare = opened(), open_tiny(runs="bare")
    assert set(s.others) == set(opened(subset=1).rows), "all that neither this subset nor the pool has"
    assert set(bare.others) & set(bare.pool_rows), "nobody learns from that pool"
    np.testing.assert_array_equal(s.rows, bare.rows)
    assert not len(opened(runs="one", **{"subsets.count": 1}).others), "then there is no other subset"


def test_a_subset_starts_from_the_pools_weights_code_and_scale(opened):
    s = opened()
    pool = pooled.pretrain(s)
    latents, decoder = pooled.code(s, pool)
    of_pool = autoencoder.load_latents(pool)
    assert torch.equal(latents.mean, of_pool.mean) and torch.equal(latents.std, of_pool.std)
    assert latents.values.shape[1] == len(s.rows) and latents.labels.tolist() == s.real.labels.tolist()
    z = decoder.encode(autoencoder.to_float(s.real.images[:1]))[0]
    torch.testing.assert_close(latents.denormalise(latents.values[0, :1]), z, atol=1e-4, rtol=1e-4)
    start = pool.folder / "unet" / "model"
    task = DiffusionTask(s.profile.diffusion, "unet", latents, decoder, start)
    own, trained = task.modules["denoiser"].backbone.state_dict(), diffusion.read(start, "unet").state_dict()
    assert all(torch.equal(own[key], trained[key]) for key in own if key != "class_embedding.weight")
    labels = own["class_embedding.weight"]
    assert torch.equal(labels[0], labels[NULL]) and torch.equal(labels[1], labels[NULL])
    assert torch.equal(labels[NULL], trained["class_embedding.weight"][NULL]), "the one that has been trained"
    assert torch.equal(task.ema["denoiser"].shadow_params[0], next(task.modules["denoiser"].parameters()))


def test_both_labels_of_a_transformer_start_as_none_too(opened):
    settings = opened().profile.diffusion
    made, trained = (diffusion.build(settings, "dit", 4, 12) for _ in range(2))
    diffusion.start_from(made, trained)
    tables = [value for key, value in made.state_dict().items() if "embedding_table" in key]
    assert tables and all(torch.equal(table[0], table[NULL]) and torch.equal(table[1], table[NULL]) for table in tables)


def test_it_is_trained_when_it_is_asked_for_and_resumes(opened, tmp_path, monkeypatch, checkpoint_always):
    """Cut in the pool's two stages and in the subset's; as one that was not."""
    s = opened()
    entry = generators.find(s, "unet_pool")
    step = {task: task.step for task in (autoencoder.AutoencoderTask, DiffusionTask)}
    for task, at in ((autoencoder.AutoencoderTask, 2), (DiffusionTask, 3), (DiffusionTask, 4)):
        count = itertools.count()

        def cut(self, rows, task=task, count=count, at=at):
            if next(count) == at:
                raise KeyboardInterrupt
            return step[task](self, rows)

        with monkeypatch.context() as patch:
            patch.setattr(task, "step", cut)
            with pytest.raises(KeyboardInterrupt):
                entry.train(s)
    assert (s.folder / "unet_pool" / "checkpoint.safetensors").exists(), "the last cut was in the subset's own training"
    sample = entry.sampler(s)
    images = sample(LABELS, seed=5)
    assert images.shape == (3, 96, 96, 3) and images.dtype == np.uint8
    straight = opened(runs="straight")
    np.testing.assert_array_equal(images, generators.find(straight, "unet_pool").sampler(straight)(LABELS, seed=5))
    result = read_json(s.results / "unet_pool.json")
    assert [row["images"] for row in result["log"]] == [32, 64, 96, 128], "the pool's and the subset's"
    assert result["pool"] | {"seconds": 0} == {"n": 32, "epochs": 2, "seconds": 0}
    assert not (s.folder / "autoencoder").exists(), "it needs nothing of notebook 02"
    (folder,) = export.export(s.root, tmp_path / "out", "generator")
    np.testing.assert_array_equal(images, pipeline.PatchPipeline.from_pretrained(folder)(LABELS, seed=5))


def test_two_processes_train_the_pool_once(opened, tmp_path):
    s, steps = opened(), tmp_path / "steps"
    step, children = DiffusionTask.step, []

    def told(self, rows):
        with open(steps, "a") as f:
            f.write(f"{os.getpid()}\n")
        return step(self, rows)

    for _ in range(2):
        pid = os.fork()
        if not pid:
            try:
                DiffusionTask.step = told
                pooled.pretrain(s)
                os._exit(0)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
        children.append(pid)
    assert [os.waitpid(pid, 0)[1] for pid in children] == [0, 0]
    lines = steps.read_text().split()
    assert len(lines) == 4 and len(set(lines)) == 1 and set(lines) < set(map(str, children))


def test_what_it_needs_is_said_in_one_sentence(opened, open_tiny):
    with pytest.raises(StudyError, match="generator unet_pool needs a section pool: add pool: {autoencoder_epochs: N"):
        open_tiny(generators=["unet_pool"])
    with pytest.raises(StudyError, match="no train patches are left outside every subset and the judge for unet_pool"):
        pooled.pretrain(opened(runs="none", **{"subsets.size": 48}))


def test_the_section_changes_the_hash_and_its_absence_does_not(opened):
    assert load_profile("smoke").sha == "39cdfcfab89d3105" and load_profile("smoke").pool is None
    shas = {opened(runs=str(n), pool={"autoencoder_epochs": 1, "epochs": n}).profile.sha for n in (2, 3)}
    assert len(shas) == 2


def test_reference_pool_is_reference_with_a_pool():
    of_pool, reference = (load_profile(name).model_dump() for name in ("reference-pool", "reference"))
    differ = {key for key in reference if of_pool[key] != reference[key]}
    assert differ == {"name", "budget", "generators", "pool"} and of_pool["generators"] == ["unet_pool"]
