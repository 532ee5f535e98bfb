"""The command line: `pcamlib COMMAND`, or `python -m pcamlib COMMAND`.

Modules that take seconds to import, because they need torch, are imported inside the commands, so that help and usage
errors come at once.
"""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from pcamlib import __version__
from pcamlib.core.command import Group, Name, Option, Subsets, run_command
from pcamlib.core.errors import StudyError
from pcamlib.core.files import die_with_owner, project_root
from pcamlib.core.settings import load_profile

PATH = click.Path(path_type=Path)
option = functools.partial(click.option, cls=Option)
profile_option = functools.partial(
    option, "--profile", metavar="NAME|FILE", help="Scale of the study: a profile's name, or a YAML file."
)
data_option = functools.partial(option, "--data", metavar="phantom|DIR", help="Folder of PCam files, or phantom.")
runs_option = option("--runs-dir", default="runs", metavar="DIR", help="Folder that holds the run folders.")


def study_options(command: Callable) -> Callable:
    """The options that `study` and `book` share."""
    cores = os.cpu_count() or 1
    for add in (
        option(
            "--executor",
            default="local",
            metavar="local|slurm|DIR",
            help="Where the notebooks run; DIR is a copy of cluster/slurm with your changes.",
        ),
        runs_option,
        option("--cores", type=int, default=cores, metavar="N", help="Processor cores for notebooks that run at once."),
        option(
            "--subsets",
            type=Subsets(),
            metavar="N|A-B",
            help="Number of subsets; all of the profile's if not given. Or which, counted from 0: 3-5.",
        ),
        data_option(default="phantom"),
        profile_option(default="demo"),
    ):
        command = add(command)
    return command


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__)
def cli() -> None:
    """Does training on synthetic histopathology patches improve a classifier?

    An executable study. Start with `pcamlib book`: it runs the demo study on made-up patches and renders the results as
    a Jupyter Book. Use `pcamlib COMMAND --help` for a command's options and an example.
    """


@cli.group(cls=Group)
def data() -> None:
    """Download, check, convert and export patches.

    \b
    Example:
      pcamlib data download pcam
      pcamlib data verify pcam
    """


@data.command()
@click.argument("dir", type=PATH)
def download(dir: Path) -> None:
    """Download PatchCamelyon (8 GB) and verify it.

    The files come from Zenodo and go into the folder DIR. An interrupted download continues when the same command runs
    again.

    \b
    Example:
      pcamlib data download pcam
    """
    from pcamlib.data import pcam
    from pcamlib.data.download import download

    download(dir)
    click.echo(pcam.summary(pcam.verify(dir)))


@data.command()
@click.argument("dir", type=PATH)
def verify(dir: Path) -> None:
    """Read every patch in a folder and report on them.

    DIR has the six PCam files. The report counts patches, classes, blank patches and duplicates, also across splits.

    \b
    Example:
      pcamlib data verify pcam
    """
    from pcamlib.data import pcam

    click.echo(pcam.summary(pcam.verify(dir)))


@data.command()
@click.argument("source", type=PATH)
@click.argument("dest", type=PATH)
@option("--size", type=Name("pcamlib.data.image_files", "SIZES"), metavar="NAME", help="For images that are not 96x96.")
@option(
    "--convert",
    "colours",
    type=Name("pcamlib.data.image_files", "CONVERSIONS", several=True),
    default=(),
    metavar="NAME[,NAME]",
    help="For images that are not 8-bit RGB.",
)
@option("--positive", metavar="NAME", help="The label that becomes class 1; all others become class 0.")
@option(
    "--fractions",
    type=(float, float, float),
    default=(0.8, 0.1, 0.1),
    metavar="TRAIN VALID TEST",
    help="Shares of the splits, if SOURCE has none.",
)
@option("--seed", type=int, default=0, metavar="N", help="Seed of the random split, if SOURCE has none.")
@option("--licence", metavar="TEXT", help="Terms of use of your patches, kept in the card.")
@option("--file-column", default="file", metavar="NAME", help="The CSV column with the file names.")
@option("--label-column", default="label", metavar="NAME", help="The CSV column with the labels.")
@option("--suffix", default="", metavar="TEXT", help="What to append to each file name of the CSV, for example .tif.")
@option(
    "--group-from", metavar="REGEX", help="Slide or patient: the first group of this expression in the file's path."
)
@option("--only", metavar="REGEX", help="Take only files whose path matches this expression.")
@option("--leave-out", multiple=True, metavar="LABEL", help="Leave out images with this label (repeatable).")
def convert(source: Path, dest: Path, **options: Any) -> None:
    """Convert your own images to PCam files.

    The files are written to the new folder DEST, whose name becomes the name of the data set. SOURCE is a folder with
    one sub-folder per class, a CSV file with the columns file,label[,split][,group], or a data set in one of the common
    layouts (the output says which).

    \b
    Example:
      pcamlib data convert slides/patches.csv my-patches --positive tumour --size resize
    """
    from pcamlib.data import pcam
    from pcamlib.data.convert import convert

    options["colours"] = list(options["colours"])
    made = convert(source, dest, warn=lambda note: click.echo(f"note: {note}", err=True), **options)
    click.echo(pcam.summary(made["report"]))
    click.echo(f"{dest}: {made['images']:,} images, fingerprint {made['fingerprint']}; see {dest / 'card.md'}")


@data.command()
@click.argument("source", type=PATH)
@click.argument("dest", type=PATH)
@option(
    "--as", "form", required=True, type=Name("pcamlib.workflow.export", "FORMS"), metavar="FORM", help="What to write."
)
def export(source: Path, dest: Path, form: str) -> None:
    """Export patches or trained generators.

    The result is the new folder DEST. SOURCE is a data folder, a synthetic set, or a run folder (every set or generator
    in it).

    \b
    Example:
      pcamlib data export runs/phantom-demo sets --as png
    """
    from pcamlib.workflow.export import export

    for folder in export(source, dest, form):
        click.echo(folder)


@cli.command()
@click.argument("dir", type=PATH)
@option("--train", type=int, default=2048, metavar="N", help="Patches in the train split.")
@option("--valid", type=int, default=512, metavar="N", help="Patches in the valid split.")
@option("--test", type=int, default=1024, metavar="N", help="Patches in the test split.")
@option("--seed", type=int, default=0, metavar="N", help="Seed of the patches.")
def phantom(dir: Path, train: int, valid: int, test: int, seed: int) -> None:
    """Write made-up patches (a phantom) as PCam files.

    The files go into the folder DIR. The patches look like stained lymph-node tissue and need no download. The same
    seed gives the same patches.

    \b
    Example:
      pcamlib phantom my-phantom --train 512 --valid 128 --test 128
    """
    from pcamlib.data import phantom

    phantom.write(dir, train, valid, test, seed)


def _study(options: dict[str, Any]) -> tuple[Path, range]:
    die_with_owner()
    load_profile(options["profile"])  # a wrong name is refused before the imports that take seconds
    from pcamlib.workflow.study import run_study

    started = time.monotonic()
    run, subsets = run_study(data_root=options.pop("data"), **options)
    click.echo(f"study: {run} ({time.monotonic() - started:.0f} s)")
    return run, subsets


@cli.command()
@study_options
def study(**options: Any) -> None:
    """Run all notebooks of the study.

    The notebooks run for all subsets and generators, several at once. If the command was interrupted, the same command
    continues.

    \b
    Example:
      pcamlib study --profile slice --data pcam --cores 2
    """
    _study(options)


@cli.command()
@study_options
def book(**options: Any) -> None:
    """Run the study, then render the book.

    The book shows the executed notebooks of subset 0 and the results over all subsets. If the command was interrupted,
    the same command continues.

    \b
    Example:
      pcamlib book --profile demo
    """
    from pcamlib.workflow.book import build_book, need_jupyter_book

    need_jupyter_book()
    if isinstance(chosen := options["subsets"], range) and chosen.start:
        raise StudyError(
            f"--subsets {chosen.start}-{chosen[-1]} has no results over all subsets, which the book shows: use pcamlib"
            " study, or give a number of subsets."
        )
    started = time.monotonic()
    run, subsets = _study(options)
    click.echo(f"book: {build_book(run, len(subsets), project_root())} ({time.monotonic() - started:.0f} s in all)")


@cli.command()
@click.argument("notebook")
@click.argument("out")
@option(
    "-p",
    "--parameter",
    "given",
    nargs=2,
    multiple=True,
    metavar="NAME VALUE",
    help="A parameter of the notebook; may be repeated.",
)
def run(notebook: str, out: str, given: tuple[tuple[str, str], ...]) -> None:
    """Run one text notebook with parameters.

    The text notebook NOTEBOOK is executed, and the executed notebook is written to OUT (.ipynb). Unknown parameters and
    values of the wrong type are errors. If a cell fails, the partial notebook is kept beside OUT.

    \b
    Example:
      pcamlib run notebooks/03_diffusion.md out.ipynb -p subset 1 -p backbone dit
    """
    die_with_owner()
    from pcamlib.workflow.notebook import one_gpu, run

    names = [name for name, _ in given]
    if len(set(names)) < len(names):
        raise StudyError(f"parameter {max(names, key=names.count)!r} is given twice: give it once.")
    logging.getLogger("papermill").setLevel(logging.ERROR)
    started = time.monotonic()
    with one_gpu():
        path = run(notebook, out, dict(given))
    click.echo(f"{path} ({time.monotonic() - started:.0f} s)")


@cli.command()
@click.argument("stages", nargs=-1, required=True, metavar="STAGE...", type=Name("pcamlib.workflow.study", "STAGES"))
@profile_option(default="demo")
@data_option(default="phantom")
@option("--subset", type=int, default=0, metavar="N", help="Number of the subset, from 0.")
@runs_option
def train(stages: tuple[str, ...], profile: str, data: str, subset: int, runs_dir: str) -> None:
    """Train stages of one subset, also on several GPUs.

    A STAGE is autoencoder, the name of a generator, or classifiers:NAME with the name of a generator or real. No
    notebook is run; the notebook of that stage, run afterwards, finds the training finished. With torchrun, training
    uses every GPU; ACCELERATE_USE_CPU=true uses processor cores.

    \b
    Example:
      torchrun --nproc_per_node 4 -m pcamlib train autoencoder unet --profile paper --data pcam
    """
    die_with_owner()
    from accelerate import PartialState

    from pcamlib.study import open_study
    from pcamlib.workflow.study import train_stage

    opened = open_study(data_root=data, runs_dir=runs_dir, profile=profile, subset=subset)
    for stage in stages:
        train_stage(opened, stage)
        if PartialState().is_main_process:
            click.echo(f"{stage}: {opened.folder}")


@cli.command()
@profile_option(default="paper")
@option("--data", metavar="DIR", help="Folder of PCam files, for their sizes; the profile's phantom if not given.")
@option("--acceptance", type=float, default=0.5, metavar="SHARE", help="Share of candidates that pass the selection.")
@option("--price-per-hour", type=float, metavar="PRICE", help="Price of one worker, in any currency.")
@option("--seconds", type=float, default=10, metavar="S", help="Time for each part, after its first step.")
@option("--publish", is_flag=True, help="Keep the estimate in the book.")
def estimate(**options: Any) -> None:
    """Estimate hours and memory of a study on this machine.

    A few steps of every stage are timed. This needs a checkout of the repository.

    \b
    Example:
      pcamlib estimate --profile paper --price-per-hour 2.5
    """
    folder = project_root() / "benchmarks"
    if not (folder / "estimate.py").is_file():
        raise StudyError(f"{folder / 'estimate.py'} does not exist: run this in a checkout of the repository.")
    sys.path.insert(0, str(folder))
    importlib.import_module("estimate").main(keep=options.pop("publish"), **options)


@cli.command()
@click.argument("plan", type=PATH)
@option("--data", required=True, metavar="DIR", help="Folder of PCam files.")
@runs_option
@option(
    "--only", type=Name("pcamlib.models.generators", "NAMES"), metavar="NAME", help="Run the trials of one generator."
)
@option("--out", type=PATH, metavar="FILE", help="Write all rows and their provenance to this JSON file.")
def tune(plan: Path, data: str, runs_dir: str, only: str | None, out: Path | None) -> None:
    """Try settings of the generators on validation data.

    PLAN is a YAML file like book/reference/tuning/plan.yml.

    \b
    Example:
      pcamlib tune book/reference/tuning/plan.yml --data pcam --only unet
    """
    from pcamlib.experiments.tuning import tune

    tune(plan, data, runs_dir, only=only, out=out, say=click.echo)


@cli.command()
@click.argument("run", type=PATH)
@click.argument("subsets", type=Subsets())
@option("--weights", type=int, metavar="K", help="Keep the generators of subset K too, in half precision.")
def publish(run: Path, subsets: int | range, weights: int | None) -> None:
    """Keep the numbers of a run in the book (for maintainers).

    The numbers of the run folder RUN go to book/reference/, their summary to README.md. SUBSETS is the number of
    subsets to publish; or which, counted from 0: 3-5 adds them to those published before. This needs a checkout of the
    repository.

    \b
    Example:
      pcamlib publish runs/pcam-reference 3 --weights 0
      pcamlib publish other-machine/pcam-reference 3-5
    """
    from pcamlib.workflow import export

    say = functools.partial(click.echo, err=True)
    click.echo(export.publish(run.resolve(), subsets, project_root(), weights=weights, say=say))


def main(argv: list[str] | None = None) -> int:
    """Run the command line `argv` (default: the process's own); returns the exit status of `run_command`."""
    return run_command(cli, "pcamlib", argv)
