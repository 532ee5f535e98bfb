"""Trials for a profile's settings: trained, judged on validation only, gone on with, shown with their scale."""

import pytest

from pcamlib import cli
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.experiments import tuning
from pcamlib.report import published_page

PLAN = """
base: smoke
conclusion: Guidance is kept.
samples: 50
trials:
  - {family: histogan, changes: {epochs: 1}}
  - family: unet
    changes: {epochs: 1, unet: {layers_per_block: 1}}
    sampling: [{guidance: 1.0}, {guidance: 2.0, steps: 3}]
  - {family: flow, changes: {epochs: 1}, sampling: [{steps: 2}]}
"""


@pytest.fixture
def plan(tmp_path):
    path = tmp_path / "tuning" / "plan.yml"
    path.parent.mkdir()
    path.write_text(PLAN)
    return path


def test_trials_are_judged_on_validation_and_go_on(plan, tmp_path, capsys, monkeypatch):
    out = plan.parent / "trials.json"
    command = ["tune", str(plan), "--data", "phantom", "--runs-dir", str(tmp_path / "runs"), "--out", str(out)]
    opened, split = [], tuning.Study.split
    monkeypatch.setattr(tuning.Study, "split", lambda self, name: opened.append(name) or split(self, name))
    assert cli.main(command) == 0
    found = read_json(out)
    assert set(opened) == {"valid"} and found["n_valid"] == 64
    assert [row["family"] for row in found["rows"]] == ["real", "autoencoder", "histogan", "unet", "unet", "flow"]
    guided = found["rows"][-2]
    assert found["rows"][-1]["sampling"] == {"steps": 2} and found["rows"][-1]["fid"] > 0
    assert guided["sampling"] == {"guidance": 2.0, "steps": 3} and guided["images"] == 64 and guided["seconds"] > 0
    assert found["rows"][-3]["fid"] != guided["fid"]
    first = capsys.readouterr().out
    limits = {50: [{k: v for k, v in row.items() if k != "family"} for row in found["rows"][:2]]}
    # once more: nothing is trained or drawn
    monkeypatch.setattr(tuning.Trials, "score", lambda self, images, labels: limits[len(labels)].pop(0))
    assert cli.main(command) == 0
    assert read_json(out)["rows"] == found["rows"] and capsys.readouterr().out == first

    text = "\n".join(published_page._tried(plan.parent))
    assert (
        "Guidance is kept." in text
        and "steps 3, guidance 2.0, layers per block 1" in text
        and "all 64 validation patches" in text
    )
    assert published_page._tried(tmp_path) == []


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("base: smoke", "samples"),
        ("base: [", "plan"),
        (PLAN.replace("family: unet", "family: gan"), "histogan"),
        (PLAN + "more: 1", "more"),
        (PLAN.replace("guidance: 2.0", "guidence: 2.0"), "guidence"),
        (PLAN.replace("changes: {epochs: 1}}", "sampling: [{guidance: 2.0}]}"), "no options of sampling"),
        (PLAN.replace("{steps: 2}", "{sampler: ddpm}"), "flow does not take sampler"),
    ],
)
def test_a_wrong_plan_is_one_sentence(plan, capsys, text, why):
    plan.write_text(text)
    assert cli.main(["tune", str(plan), "--data", "phantom"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: plan") and message.count("\n") == 1 and why in message


def test_an_unknown_setting_names_the_nearest(plan, tmp_path, capsys):
    plan.write_text(PLAN.replace("{epochs: 1}", "{epoch: 1}"))
    assert cli.main(["tune", str(plan), "--data", "phantom", "--runs-dir", str(tmp_path / "runs")]) == 2
    assert "did you mean" in capsys.readouterr().err


def test_a_missing_plan_is_one_sentence(tmp_path):
    with pytest.raises(StudyError, match="cannot be read"):
        tuning.read_plan(tmp_path / "none.yml")


def test_the_published_plan_is_one():
    assert tuning.read_plan(project_root() / "book" / "reference" / "tuning" / "plan.yml").trials
