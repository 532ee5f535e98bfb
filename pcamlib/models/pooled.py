"""Regime B: a U-Net that first learns from an unlabelled pool and then from its subset's labels.

In the paper's regime, A, a generator sees its subset only. Here autoencoder and denoiser are trained once per run on
all train rows outside every subset that the judge has not seen, with every label replaced by "no label". Each subset
then encodes its own patches with the pool's autoencoder and scale, starts its denoiser from the pool's averaged
weights, and trains it with its labels as the profile's section `diffusion` says. No profile uses it unless its key
`generators` lists "unet_pool".
"""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path

from accelerate import PartialState
from safetensors import safe_open

from pcamlib import training
from pcamlib.core.errors import StudyError, loading_weights
from pcamlib.core.files import lock
from pcamlib.core.settings import POOLED as NAME
from pcamlib.models import autoencoder, diffusion
from pcamlib.study import Study
from pcamlib.training.progress import read_log

BACKBONE = "unet"


class Pool(Study):
    """The pool of a run as a study: its rows are the pool's, its folder is <run>/pool, its seed that of the whole
    run."""

    @property
    def folder(self) -> Path:
        return self.root / "pool"

    @property
    def seed(self) -> int:
        return training.derive(self.profile.seed, "pool")


def pool_of(study: Study) -> Pool:
    """The pool of a study's run. StudyError if the profile has no section `pool`, or no rows are left for it."""
    p, settings = study.profile, study.profile.pool
    if settings is None:
        raise StudyError(f"profile {p.name!r} has no section pool: add pool: {{autoencoder_epochs: N, epochs: N}}.")
    if not len(study.pool_rows):
        raise StudyError(
            f"{study.data_root}: no train patches are left outside every subset and the judge for {NAME} to learn from:"
            " choose fewer or smaller subsets, or a smaller quality.judge.size."
        )
    profile = p.model_copy(
        update={
            "autoencoder": p.autoencoder.model_copy(update={"epochs": settings.autoencoder_epochs}),
            "diffusion": p.diffusion.model_copy(update={"epochs": settings.epochs, "label_dropout": 1.0}),
        }
    )
    held = {field.name: getattr(study, field.name) for field in dataclasses.fields(study)}
    return Pool(**held | {"profile": profile, "rows": study.pool_rows})


def pretrain(study: Study) -> Pool:
    """Train the pool's autoencoder and denoiser, or resume, or find them finished; returns the pool.

    Subsets share them: while one process trains, others wait.
    """
    pool = pool_of(study)
    with contextlib.ExitStack() as held:
        with training.main_first():
            if PartialState().is_main_process:
                held.enter_context(lock(pool.folder, wait=True))
            finished = (pool.folder / BACKBONE / "model").is_dir()  # written last
        if not finished:
            autoencoder.encode_subset(pool, autoencoder.train(pool)[0])
            diffusion.train(pool, BACKBONE)
    return pool


def code(study: Study, pool: Pool) -> diffusion.Code:
    """The subset's patches as latents of the pool's autoencoder, in the pool's scale; and that autoencoder."""
    decoder, path = autoencoder.load(pool), pool.folder / "autoencoder" / "latents.safetensors"
    with loading_weights(path, f"remove {pool.folder} and run notebooks/05_selection.md again"):
        with safe_open(path, "pt") as stored:
            scale = stored.get_tensor("mean"), stored.get_tensor("std")
    return autoencoder.encode_subset(study, decoder, folder=study.folder / NAME, scale=scale), decoder


def train(study: Study) -> tuple[diffusion.DiffusionSampler, list[dict[str, float]]]:
    """Train the subset's generator and, first, what its pool lacks; or resume, or load what is finished.

    Returns it with its averaged weights, and the log: the pool's epochs of the denoiser, then the subset's. Epochs,
    steps and images are counted on; seconds are each stage's own. Writes unet_pool/model and results/unet_pool.json.
    """
    pool = pretrain(study)
    start = pool.folder / BACKBONE / "model"
    sampler, log = diffusion.train(study, BACKBONE, name=NAME, code=code(study, pool), start=start)
    before = read_log(start.parent)
    counted = ("epoch", "step", "images")
    whole = [*before, *(row | {key: row[key] + before[-1][key] for key in counted} for row in log)]
    with training.main_first():
        if not (study.results / f"{NAME}.json").exists():
            study.write_result(
                NAME,
                {"log": whole, "pool": {"n": len(pool.rows), "epochs": len(before), "seconds": before[-1]["seconds"]}},
                precision=study.profile.diffusion.precision,
                seconds=log[-1]["seconds"],
                version=training.versions(whole),
            )
    return sampler, whole
