# The study as a graph; a node is one notebook run. Started by `pcamlib study`, which holds the run folder's
# lock (so --nolock here) and passes the configuration.
import os
from pathlib import Path

from pcamlib.core.files import OWNER, die_with_owner

die_with_owner()
if config["executor"] != "local":
    os.environ.pop(OWNER, None)  # sbatch hands the environment to nodes where that process number is nobody's

RUN, PROFILE, DATA, RUNS = config["run"], config["profile"], config["data"], config["runs_dir"]
SUBSETS, THREADS = config["subsets"], int(config["threads"])
NOTEBOOKS = Path(workflow.basedir) / "notebooks"
EXECUTED = f"{RUN}/subset-{{k}}/notebooks"
AFTER = config["generators"]  # name: the notebook that has to run before its samples are drawn, or None
GENERATORS = list(AFTER)


# the published numbers that notebook 08 shows beside its own
REFERENCE = NOTEBOOKS.parent / "book" / "reference"
PUBLISHED = sorted(
    path for pattern in ("*.csv", "provenance/*.csv", "intervals/*.json") for path in REFERENCE.glob(pattern)
)


def source(name):
    return str(NOTEBOOKS / f"{name}.md")


# the notebook gets the user's own cache folder again, in place of the one that Snakemake was given
CACHE = "XDG_CACHE_HOME={config[cache_home]:q}" if config["cache_home"] else "-u XDG_CACHE_HOME"
# exec: the run replaces the shell, so that it is this process's own child
COMMAND = (
    f"exec env {CACHE} {{config[python]:q}} -m pcamlib run {{input.source:q}} {{output:q}} "
    f"-p data_root {{config[data]:q}} -p runs_dir {{config[runs_dir]:q}} -p profile {{config[profile]:q}} "
)
ONE = COMMAND + "-p subset {wildcards.k}"


wildcard_constraints:
    k=r"\d+",
    generator="|".join(GENERATORS),
    backbone="|".join(g for g, after in AFTER.items() if after == f"03_diffusion_{g}") or "none",


rule all:
    input:
        config["targets"],


rule dataset:
    input: source=source("01_dataset")
    output: EXECUTED + "/01_dataset.ipynb"
    threads: THREADS
    priority: 90
    shell: ONE


rule autoencoder:
    input: source=source("02_autoencoder")
    output: EXECUTED + "/02_autoencoder.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 80
    shell: ONE


rule diffusion:
    input: EXECUTED + "/02_autoencoder.ipynb", source=source("03_diffusion")
    output: EXECUTED + "/03_diffusion_{backbone}.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 70
    shell: ONE + " -p backbone {wildcards.backbone}"


rule histogan:
    input: source=source("04_histogan")
    output: EXECUTED + "/04_histogan.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 50
    shell: ONE


rule classification_real:
    input: source=source("07_classification")
    output: EXECUTED + "/07_classification_real.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 60
    shell: ONE + " -p generator real"


def trained(wildcards):
    after = AFTER[wildcards.generator]
    return [f"{EXECUTED.format(k=wildcards.k)}/{after}.ipynb"] if after else []


rule selection:
    input: trained, EXECUTED + "/07_classification_real.ipynb", source=source("05_selection")
    output: EXECUTED + "/05_selection_{generator}.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 65
    shell: ONE + " -p generator {wildcards.generator}"


rule quality:
    input:
        expand(EXECUTED + "/05_selection_{generator}.ipynb", generator=GENERATORS, allow_missing=True),
        EXECUTED + "/02_autoencoder.ipynb",
        source=source("06_quality"),
    output: EXECUTED + "/06_quality.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 40
    shell: ONE


rule classification:
    input: EXECUTED + "/05_selection_{generator}.ipynb", source=source("07_classification")
    output: EXECUTED + "/07_classification_{generator}.ipynb"
    threads: THREADS
    resources: gpu=1
    priority: 45
    shell: ONE + " -p generator {wildcards.generator}"


rule results:
    input:
        expand(EXECUTED + "/06_quality.ipynb", k=SUBSETS),
        expand(EXECUTED + "/07_classification_{generator}.ipynb", k=SUBSETS, generator=["real", *GENERATORS]),
        source=source("08_results"),
        published=[str(path) for path in PUBLISHED],
    output: f"{RUN}/notebooks/08_results-{len(SUBSETS)}.ipynb"
    threads: THREADS
    shell: COMMAND + f"-p subsets {len(SUBSETS)}"
