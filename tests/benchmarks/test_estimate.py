"""Hours of a study before they are spent: sums by hand, and the page from its file."""

import json
import re

import estimate
import pytest
import timing
import yaml
from estimate import Sizes, Stage

from pcamlib import cli
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.core.settings import FOLDER, load_profile
from pcamlib.experiments import classification
from pcamlib.models import generators
from pcamlib.study import GENERATORS, REAL

COST = {family: {"step": 2.0, "image": 0.5, "bytes": 1e9, "flops": 1e9} for family in timing.TRAINED}
COST["autoencoder"] |= {"encode": 0.25, "decode": 0.125}
COST["unet"]["denoise"] = COST["dit"]["denoise"] = COST["flow"]["denoise"] = COST["unet_pool"]["denoise"] = 0.0625
COST["features"] = {"vgg16": 0.5, "judge": 0.25, "bytes": 2e9}
COST["metrics"] = {"rows": 32, "dims": 512, "neighbours": 4.0, "distance": 1.0, "bytes": 1e9}
COST["data"] = {"load": 0.01, "bytes": 1e9}
SIZES = Sizes(subset=64, valid=20, test=30)


def test_the_longest_chain_by_hand():
    seconds = {"autoencoder 0": 3, "diffusion 0 unet": 4, "diffusion 0 dit": 9, "histogan 0": 1}
    seconds |= {"classification 0 real": 15, "quality 0": 2}
    seconds |= {f"selection 0 {name}": s for name, s in zip(GENERATORS, (5, 1, 6))}  # histogan, unet, dit
    seconds |= {f"classification 0 {name}": 1 for name in GENERATORS}
    chain = estimate.chain_seconds({name: Stage("", s, 0) for name, s in seconds.items()}, 1)
    assert chain == 15 + 6 + 2, "the real-only classifiers, the slowest selection, quality"
    slower = {name: Stage("", 30 if name == "diffusion 0 unet" else s, 0) for name, s in seconds.items()}
    assert estimate.chain_seconds(slower, 1) == 3 + 30 + 1 + 2


def test_stages_are_the_snakefiles():
    p = load_profile("smoke")
    found = estimate.stages(p, SIZES, COST, acceptance=0.8)
    snakefile = (project_root() / "Snakefile").read_text()
    rules = set(re.findall(r"^rule (\w+):", snakefile, re.M)) - {"all", "results"}
    assert {stage.rule for stage in found.values()} == rules
    runs = {rule: sum(s.rule == rule for s in found.values()) / p.subsets.count for rule in rules}
    assert runs == dict.fromkeys(rules, 1) | {"diffusion": 2, "selection": 3, "classification": 3}


def test_seconds_by_hand():
    p = load_profile("smoke")  # batches: VAE 8, diffusion 16, classifier 16; epochs 2, 4, 1; 5 sampling steps
    found = estimate.stages(p, SIZES, COST, acceptance=0.8)
    assert found["autoencoder 0"].seconds == 2 * 8 * 2.0 + 64 * 8 * 0.25
    assert found["diffusion 1 unet"].seconds == 4 * 4 * 2.0
    candidates = 64 / 0.8
    each = 5 * 0.0625 + 0.125 + 0.5
    radii = 4.0 * 4 * candidates / 64
    assert found["selection 0 dit"].seconds == pytest.approx(candidates * each + radii + 64 * 0.01)
    assert len(classification.arms("dit")) == 9 and len(classification.arms(REAL)) == 9
    arms = 3 * (4 + 4 + 8) * 2.0 + 9 * 50 * 0.5  # three selections of one, one and two subsets' patches
    assert found["classification 0 dit"].seconds == pytest.approx(arms + (9 * 64 + 50) * 0.01)
    real = (4 + 4 + 8 + 4 + 8 + 4 * 4) * 2.0 + 9 * 50 * 0.5
    assert found["classification 0 real"].seconds == pytest.approx(real + (3 * 64 + 50) * 0.01)
    sets = 9 + 2
    quality = (
        (sets + 1) * 64 * 0.75 + sets * 2 * (4.0 * 4 + 2.0) + 64 * 0.375 + (64 + 20) * 0.25 + (sets + 2) * 64 * 0.01
    )
    assert found["quality 0"].seconds == pytest.approx(quality), "the judge sees every set once, its own rows and valid"
    capped = estimate.stages(p, SIZES, COST, acceptance=0.01)["selection 0 dit"].seconds
    assert capped == pytest.approx(64 * 1.5 * (each + 4.0 * 4 / 64) + 64 * 0.01), "no more than the cap"


@pytest.fixture
def made_up(monkeypatch):
    """Costs without timing anything."""
    monkeypatch.setattr(estimate, "time_family", lambda family, *options: COST[family])
    monkeypatch.setattr(timing, "matrix_rate", lambda dtype: 5e10)


def test_a_whole_estimate_is_kept_and_shown(made_up, tmp_path):
    found = estimate.estimate("smoke", None, 0.5, 2.0, 1)
    walls = found["least_wall_seconds"]
    assert walls["1"] == pytest.approx(found["total_seconds"]) and walls["1"] > walls["4"] >= walls["16"]
    assert walls["16"] == pytest.approx(found["chain_seconds"])
    ends = found["total_seconds_by_acceptance"]
    assert ends["1"] < found["total_seconds"] <= ends["cap"]
    page = tmp_path / "book" / "running.md"
    page.parent.mkdir()
    page.write_text(f"Before.\n{estimate.START}\nold\n{estimate.END}\nAfter.\n")
    path = estimate.publish(found, tmp_path)
    assert read_json(path) == json.loads(json.dumps(found))
    text = page.read_text()
    assert text.startswith("Before.") and text.endswith("After.\n") and "old" not in text
    assert estimate.table(found) in text and "cost" in text
    with pytest.raises(StudyError, match="must have one line"):
        estimate.into("no marks", [found])


def test_the_book_shows_the_kept_estimates():
    page = (project_root() / "book" / "running.md").read_text()
    kept = [read_json(p) for p in sorted((project_root() / "book" / "reference" / "estimates").glob("*.json"))]
    assert estimate.into(page, kept) == page, "run pcamlib estimate --publish again"


def test_bad_input_is_one_sentence(made_up, capsys, tmp_path):
    for arguments, said in (
        (["--acceptance", "0"], "--acceptance is 0.0: give a share"),
        (["--profile", "papr"], "did you mean 'paper'?"),
        (["--profile", "smoke", "--data", str(tmp_path)], "camelyonpatch"),
    ):
        assert cli.main(["estimate", *arguments]) == 2
        assert said in capsys.readouterr().err


@pytest.mark.parametrize("family", ["unet", "flow", "classifier"])
def test_one_step_is_the_loops_own(family):
    p = load_profile("smoke")
    found = timing.measure(family, p, 0.05)
    assert found["step"] > 0 and found["batch"] == timing.section(family, p).batch_size
    assert found["flops"] > 1e7 and found["bytes"] > 1e8
    assert found["image" if family == "classifier" else "denoise"] > 0


def test_a_family_is_timed_in_a_process_of_its_own():
    assert estimate.time_family("metrics", "smoke", 0.01)["rows"] == 64
    with pytest.raises(StudyError, match="timing nonsense of profile smoke failed"):
        estimate.time_family("nonsense", "smoke", 0.01)


def test_every_registered_generator_can_be_timed():
    assert set(generators.REGISTRY) == set(timing.GENERATORS) <= set(timing.FAMILIES)


def smoke_with(tmp_path, listed, **more):
    content = yaml.safe_load((FOLDER / "smoke.yml").read_text()) | {"name": "mine", "generators": listed} | more
    (tmp_path / "mine.yml").write_text(yaml.safe_dump(content))
    return load_profile(str(tmp_path / "mine.yml"))


def test_an_estimate_follows_the_profiles_generators(made_up, tmp_path):
    """A flow is trained by its selection; images made elsewhere cost their reading; who is not listed costs nothing."""
    p = smoke_with(tmp_path, ["unet", "flow", {"name": "mine", "images": "x"}])
    found = estimate.stages(p, SIZES, COST, acceptance=0.8)
    assert {name for name in found if " 0" in name} == {
        "dataset 0", "autoencoder 0", "diffusion 0 unet", "quality 0", "classification 0 real",
        *(f"{stage} 0 {name}" for stage in ("selection", "classification") for name in ("unet", "flow", "mine")),
    }  # fmt: skip
    drawn = found["selection 0 unet"].seconds
    assert found["selection 0 flow"].seconds == pytest.approx(drawn + found["diffusion 0 unet"].seconds)
    each = 5 * 0.0625 + 0.125
    assert found["selection 0 mine"].seconds == pytest.approx(drawn - 64 / 0.8 * (each - 0.01))
    assert "histogan" not in estimate.families(p) and {"unet", "flow"} <= set(estimate.families(p))
    total = estimate.estimate(str(tmp_path / "mine.yml"), None, 0.8, None, 1)
    assert total["stages"]["selection"]["runs"] == 6 and "histogan" not in total["cost"]
    alone = {name: Stage("", 1, 0) for name in found} | {"autoencoder 0": Stage("", 100, 0)}
    assert estimate.chain_seconds(alone, 1, ["mine"]) == 100 + 1 + 1 + 1
    only = {name: stage for name, stage in alone.items() if "unet" not in name and "flow" not in name}
    assert estimate.chain_seconds(only, 1, ["mine"]) == 1 + 1 + 1 and estimate.chain_seconds(only, 1) == 102


def test_the_pool_is_trained_once(made_up, tmp_path):
    p = smoke_with(tmp_path, ["unet", "unet_pool"], pool={"autoencoder_epochs": 3, "epochs": 5})
    found = estimate.stages(p, SIZES._replace(pool=96), COST, acceptance=0.8)
    first, second = (found[f"selection {k} unet_pool"].seconds for k in (0, 1))
    encode = 64 * 8 * 0.25
    assert second == pytest.approx(found["selection 1 unet"].seconds + found["diffusion 1 unet"].seconds + encode)
    assert first - second == pytest.approx(3 * 12 * 2.0 + 5 * 6 * 2.0 + 96 * (8 * 0.25 + 0.01))
    assert estimate.sizes(p, None).pool == 256 - 2 * 64 - 64
    full = p.model_copy(update={"subsets": p.subsets.model_copy(update={"size": 128})})
    with pytest.raises(StudyError, match="no train patches are left for unet_pool"):
        estimate.sizes(full, None)


def test_classifier_seeds_are_counted():
    p = load_profile("smoke")
    several = p.model_copy(update={"classifier": p.classifier.model_copy(update={"seeds": 3, "seeded": ["baseline"]})})
    one, three = (
        estimate.stages(q, SIZES, COST, acceptance=0.8)["classification 0 real"].seconds for q in (p, several)
    )
    assert three - one == pytest.approx(2 * (4 * 2.0 + 50 * 0.5)), "two more baselines"
