"""Which notebooks the study runs for a profile's list of generators."""

import json
import re
import subprocess
import sys

import pytest

from pcamlib.core.files import project_root
from pcamlib.models import generators
from pcamlib.workflow.study import targets


def planned(folder, listed):
    """How often each rule would run for one subset, by Snakemake's own plan."""
    config = {"run": str(folder), "profile": "smoke", "data": "phantom", "runs_dir": str(folder), "subsets": 1}
    config |= {"threads": 1, "python": sys.executable, "executor": "local", "generators": listed}
    config |= {"cache_home": "", "targets": [str(path) for path in targets(folder, 1)]}
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
