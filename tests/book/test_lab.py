"""`make lab`: a double click opens a text notebook as a notebook, and saving leaves text that diffs by what was
changed."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from urllib.error import URLError

import jupytext
import pytest

from pcamlib.core.files import project_root

ROOT = project_root()


@pytest.fixture(scope="module")
def ask(tmp_path_factory):
    """ask(path, content=None): GET or PUT on a JupyterLab server started on a copy of the notebooks as the Makefile
    does."""
    pytest.importorskip("jupyterlab")
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", root / "notebooks", ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    recipe = re.search(r"^lab:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), re.M).group(1)
    config, arguments = re.fullmatch(r'@JUPYTER_CONFIG_PATH="\$\(CURDIR\)/(\w+).*?" \$\(PY\) (.*)', recipe).groups()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"JUPYTER_CONFIG_PATH": str(ROOT / config), "JUPYTER_CONFIG_DIR": str(root / "config")}
    options = ["--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}", "--IdentityProvider.token=secret"]
    log = root / "lab.log"
    with open(log, "w") as f:
        server = subprocess.Popen(
            [sys.executable, *arguments.split(), *options], cwd=root, env=environment, stdout=f, stderr=f
        )

    def ask(path, content=None):
        request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers={"Authorization": "token secret"})
        if content is not None:
            request.data, request.method = json.dumps(content).encode(), "PUT"
            request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    ask.root = root
    try:
        for _ in range(120):
            assert server.poll() is None, log.read_text()
            try:
                ask("/api")
                break
            except URLError:
                time.sleep(0.5)
        yield ask
    finally:
        server.terminate()
        server.wait(30)


def test_a_double_click_opens_the_notebook(ask):
    shown = ask("/lab/api/settings/@jupyterlab/docmanager-extension:plugin")
    viewers = shown["schema"]["properties"]["defaultViewers"]["default"] | shown["settings"].get("defaultViewers", {})
    assert viewers["markdown"] == viewers["myst"] == "Jupytext Notebook"
    model = ask("/api/contents/01_dataset.md")
    assert model["type"] == "notebook", "jupytext's contents manager is not in charge"


@pytest.mark.parametrize("name", sorted(path.name for path in (ROOT / "notebooks").glob("*.md")))
def test_saving_keeps_the_text_and_the_change(ask, name):
    def save():
        ask(f"/api/contents/{name}", {"type": "notebook", "format": "json", "content": model["content"]})
        return path.read_text()

    path = ask.root / "notebooks" / name
    model = ask(f"/api/contents/{name}?type=notebook")
    before = jupytext.read(path)
    first = save()
    after = jupytext.reads(first, "md:myst")
    assert [(c.source, c.metadata) for c in after.cells] == [(c.source, c.metadata) for c in before.cells]
    assert save() == first, "saved without a change, the text must not change"
    (parameters,) = [cell for cell in model["content"]["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    parameters["source"] = parameters["source"].replace('profile = "demo"', 'profile = "smoke"')
    assert save() == first.replace('profile = "demo"', 'profile = "smoke"') != first
    assert not list(path.parent.glob("*.ipynb"))
