"""Nothing in the package can unpickle a file: every call of a loader is looked at in the syntax tree.

Allowed are torch.load with weights_only=True and from_pretrained with use_safetensors=True. Of libraries that unpickle by
themselves (torch-fidelity), the file must have passed a check of its SHA-256 first.
"""

from __future__ import annotations

import ast
import pickle
import shutil

import pytest
import torch

from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root

FOLDERS = ("pcamlib", "lab", "book/_ext", "benchmarks", "cluster")
MODULES = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "pickletools"}
NAMES = {"read_pickle", "load_state_dict_from_url", "unsafe_load", "full_load", "UnsafeLoader", "load_pickle"}
HASHED = {"feature_extractor_weights_path": "INCEPTION_SHA256"}
"""Parameter through which a library unpickles, and the hash that its module must compare."""


def _true(call: ast.Call, name: str) -> bool:
    return any(k.arg == name and isinstance(k.value, ast.Constant) and k.value.value is True for k in call.keywords)


def _forwards_safely(call: ast.Call) -> bool:
    """super().from_pretrained(..., **options | {"use_safetensors": True}): the dict at the right wins."""
    for k in call.keywords:
        if k.arg is None and isinstance(k.value, ast.BinOp) and isinstance(k.value.right, ast.Dict):
            right = {ast.unparse(a): ast.unparse(b) for a, b in zip(k.value.right.keys, k.value.right.values)}
            if right.get("'use_safetensors'") == "True":
                return True
    return False


def dangers(source: str) -> list[str]:
    """What in a module could unpickle, a line each."""
    found, tree = [], ast.parse(source)
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
        found += [f"import of {name}" for name in names if name.split(".")[0] in MODULES or name in NAMES]
        if isinstance(node, ast.ImportFrom) and (node.module, "load") in [("torch", a.name) for a in node.names]:
            found.append("load imported by its bare name")
        if isinstance(node, ast.Attribute) and node.attr in NAMES:
            found.append(node.attr)
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        if called in ("torch.load", "torch.jit.load") and not _true(node, "weights_only"):
            found.append(f"{called} without weights_only=True")
        if called.endswith("from_pretrained") and not (_true(node, "use_safetensors") or _forwards_safely(node)):
            found.append(f"{called} without use_safetensors=True")
        if called == "yaml.load" and "(yaml.SafeLoader)" not in source:
            found.append("yaml.load without a SafeLoader")
        for k in node.keywords:
            if k.arg == "allow_pickle" and not (isinstance(k.value, ast.Constant) and k.value.value is False):
                found.append("allow_pickle")
            if k.arg == "weights_only" and not (isinstance(k.value, ast.Constant) and k.value.value is True):
                found.append("weights_only is not True")
            if k.arg in HASHED and f"!= {HASHED[k.arg]}" not in source:
                found.append(f"{k.arg} without a check of {HASHED[k.arg]}")
    return found


def test_no_loader_in_the_tree_reaches_a_pickle():
    modules = [path for folder in FOLDERS for path in (project_root() / folder).rglob("*.py")]
    assert len(modules) > 60
    assert {str(path): found for path in modules if (found := dangers(path.read_text(encoding="utf-8")))} == {}


@pytest.mark.parametrize(
    "line",
    [
        "import pickle", "from pickle import loads", "import joblib", "torch.load(path)", "from torch import load",
        "torch.load(path, weights_only=False)", "torch.load(path, weights_only=flag)", "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)", "pd.read_pickle(path)", "kind.from_pretrained(folder)", "yaml.load(text)",
        "kind.from_pretrained(folder, use_safetensors=False)", "kind.from_pretrained(folder, **options)",
        "super().from_pretrained(folder, **{'use_safetensors': True} | options)",
        "torch.hub.load_state_dict_from_url(address)", "Net(feature_extractor_weights_path=path)",
        "timm_load(path, weights_only=False)", "yaml.full_load(text)",
    ],
)  # fmt: skip
def test_a_loader_that_could_is_found(line):
    assert dangers(line)


class Payload:
    def __reduce__(self):
        return (open, ("unpickled", "w"))


def test_a_pickle_in_the_place_of_lost_weights_is_not_opened(tmp_path, monkeypatch):
    from diffusers import AutoencoderKL

    from pcamlib.models import autoencoder, classifier

    monkeypatch.chdir(tmp_path)
    AutoencoderKL(block_out_channels=(32,)).save_pretrained(tmp_path / "vae")
    (weights,) = (tmp_path / "vae").glob("*.safetensors")
    weights.unlink()
    torch.save({"x": Payload()}, tmp_path / "vae" / "diffusion_pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        autoencoder.pretrained(AutoencoderKL, tmp_path / "vae")
    (tmp_path / "weights.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(StudyError, match="does not hold resnet18.* weights .Weights only load failed"):
        classifier.build(str(tmp_path / "weights.pth"))
    assert not (tmp_path / "unpickled").exists()
    pickle.loads(pickle.dumps(Payload())).close()
    assert (tmp_path / "unpickled").exists(), "the payload works where something unpickles it"


def test_an_exported_pipeline_without_its_safetensors_is_not_unpickled(tmp_path, monkeypatch):
    from pcamlib.core.settings import load_profile
    from pcamlib.models import diffusion, pipeline

    monkeypatch.chdir(tmp_path)
    profile = load_profile("smoke")
    decoder = pipeline.PatchDecoder(profile.autoencoder.model_dump(), 4, 12)
    pipe = pipeline.PatchPipeline(diffusion.build(profile.diffusion, "unet", 4, 12), decoder)
    pipe.save_pretrained(tmp_path / "unet")
    assert isinstance(pipeline.PatchPipeline.from_pretrained(tmp_path / "unet"), pipeline.PatchPipeline)
    shutil.copytree(tmp_path / "unet", tmp_path / "lost")
    for weights in (tmp_path / "lost").rglob("*.safetensors"):
        torch.save({"x": Payload()}, weights.with_suffix(".bin"))
        weights.unlink()
    with pytest.raises(OSError):
        pipeline.PatchPipeline.from_pretrained(tmp_path / "lost")
    assert not (tmp_path / "unpickled").exists()
