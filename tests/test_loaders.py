"""No code of ours can reach a pickle: every loader in the tree is looked at in the source."""

import ast
from pathlib import Path

import pytest

import pcamlib

ROOT = Path(pcamlib.__file__).parents[1]
SOURCES = sorted(
    [*(ROOT / "pcamlib").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py"), *(ROOT / "book").rglob("*.py")]
)
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}


def calls(tree):
    """Every call as (dotted name, its keywords, the function in which it stands)."""
    inside = {}
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            inside |= {id(node): function for node in ast.walk(function)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            keywords = {key.arg: ast.unparse(key.value) for key in node.keywords}
            yield ast.unparse(node.func), keywords, inside.get(id(node))


def faults(source):
    """Loaders in a piece of Python that could unpickle what a file holds."""
    tree, found = ast.parse(source), []
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        found += [f"import {name}" for name in names if name.split(".")[0] in MODULES]
    for name, keywords, function in calls(tree):
        if name == "torch.load" and keywords.get("weights_only") != "True":
            found.append("torch.load without weights_only")
        if name.endswith((".load_state_dict_from_url", "hub.load", "read_pickle")):
            found.append(name)
        if name.endswith(".load") and keywords.get("allow_pickle", "False") != "False":
            found.append("allow_pickle")
        if name.endswith("from_pretrained") and not name.startswith("PatchPipeline."):
            text = ast.unparse(function) if function else ""
            if keywords.get("use_safetensors") != "True" and "'use_safetensors': True" not in text:
                found.append(f"{name} without use_safetensors")
        if name == "FeatureExtractorInceptionV3":  # torch-fidelity unpickles: only after the hash was compared
            if not function or "inception_file(" not in ast.unparse(function):
                found.append("torch-fidelity without the file's hash")
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_loader_unpickles(path):
    assert faults(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path, allow_pickle=True)",
        "UNet2DModel.from_pretrained(folder)",
        "UNet2DModel.from_pretrained(folder, use_safetensors=False)",
        "def f(path):\n    return FeatureExtractorInceptionV3('x', feature_extractor_weights_path=path)",
        "torch.hub.load('a/b', 'c')",
    ],
)
def test_the_look_sees_what_it_should(source):
    assert faults(source)
