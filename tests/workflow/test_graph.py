"""Which notebooks the study runs for a profile's list of generators."""

import json
import re
import subprocess
import sys

import pytest

from pcamlib.core.files import project_root
from pcamlib.models import generators
from pcamlib.workflow.study import targets


def planned(folder, listed, subsets=range(1)):
    """How often each rule would run for some subsets, by Snakemake's own plan."""
    config = {"run": str(folder), "profile": "smoke", "data": "phantom", "runs_dir": str(folder)}
    config |= {"subsets": list(subsets)}
    config |= {"threads": 1, "python": sys.executable, "executor": "local", "generators": listed}
    config |= {"cache_home": "", "targets": [str(path) for path in targets(folder, subsets, listed)]}
    (folder / "config.json").write_text(json.dumps(config))
    command = [sys.executable, "-m", "snakemake", "--snakefile", project_root() / "Snakefile", "--directory", folder]
    command += ["--configfile", folder / "config.json", "--cores", "1", "--dry-run", "--quiet", "rules", "--nolock"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = dict(re.findall(r"^(\w+) +(\d+)$", done.stdout + done.stderr, re.M))
    return {name: int(count) for name, count in found.items() if name not in ("all", "total")}


@pytest.mark.parametrize(
    "names, expected",
    [
        (["histogan", "unet", "dit"], {"diffusion": 2, "histogan": 1, "selection": 3, "classification": 3}),
        (["dit", "flow", "mine"], {"diffusion": 1, "selection": 3, "classification": 3}),
        (["unet_pool"], {"selection": 1, "classification": 1}),
        (["mine"], {"selection": 1, "classification": 1}),
    ],
)
def test_the_graph_follows_the_list(tmp_path, names, expected):
    after = {name: generators.REGISTRY[name].after if name in generators.REGISTRY else None for name in names}
    always = dict.fromkeys(("dataset", "autoencoder", "classification_real", "quality", "results"), 1)
    assert planned(tmp_path, after) == expected | always


def test_later_subsets_run_by_themselves_and_without_results(tmp_path):
    after = {"unet": "03_diffusion_unet"}
    every = ("dataset", "autoencoder", "classification_real", "quality", "diffusion", "selection", "classification")
    assert planned(tmp_path, after, range(3, 5)) == dict.fromkeys(every, 2)
