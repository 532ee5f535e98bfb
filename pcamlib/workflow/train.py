"""Train stages of one subset without their notebooks, in several processes if started so.

    torchrun --nproc_per_node 4 -m pcamlib.workflow.train autoencoder unet dit --profile paper --data DIR --subset 0

A notebook's kernel is one process. This trains into the same run folder, on every GPU of a machine (or several), and
the notebook, run afterwards, finds the training finished and goes on from there. ACCELERATE_USE_CPU=true uses
processor cores.
"""

from __future__ import annotations

import argparse
import sys

from accelerate import PartialState

from pcamlib.core.errors import StudyError
from pcamlib.experiments import classification
from pcamlib.models import autoencoder, diffusion, histogan
from pcamlib.study import GENERATORS, REAL, Study, open_study

STAGES = ("autoencoder", "unet", "dit", "histogan", *(f"classifiers:{g}" for g in (REAL, *GENERATORS)))


def train(study: Study, stage: str) -> None:
    """Train one of STAGES, as its notebook would; what is finished is left alone."""
    if stage == "autoencoder":
        model, _ = autoencoder.train(study)
        autoencoder.encode_subset(study, model)
    elif stage == "histogan":
        histogan.train(study, folder=study.folder / "histogan")
    elif stage in ("unet", "dit"):
        diffusion.train(study, stage)
    else:
        classification.run_arms(study, stage.removeprefix("classifiers:"))


def main(argv: list[str] | None = None) -> int:
    """Train STAGEs of one subset in the order given; exit 0, or 2 with one sentence."""
    parser = argparse.ArgumentParser(prog="python -m pcamlib.workflow.train", description=main.__doc__)
    parser.add_argument("stages", nargs="+", choices=STAGES, metavar="STAGE", help=", ".join(STAGES))
    parser.add_argument("--profile", default="demo")
    parser.add_argument("--data", default="phantom")
    parser.add_argument("--subset", type=int, default=0)
    parser.add_argument("--runs-dir", default="runs")
    args = parser.parse_args(argv)
    try:
        study = open_study(data_root=args.data, runs_dir=args.runs_dir, profile=args.profile, subset=args.subset)
        for stage in args.stages:
            train(study, stage)
            if PartialState().is_main_process:
                print(f"{stage}: {study.folder}", flush=True)
    except StudyError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
