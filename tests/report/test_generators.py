"""Tables and figures follow the generators of a run, in the paper's order with others behind."""

import json

import pytest
from made_up import write_run

from pcamlib.core import paper
from pcamlib.core.files import read_json, write_json
from pcamlib.models import generators
from pcamlib.report import quality_tables, result_plots, tables
from pcamlib.results import load
from pcamlib.results.arms import ARMS, IMAGE_SETS, Arm, classifiers, generators_of, image_sets


@pytest.fixture
def results(tmp_path):
    """A run with two more generators, a rectified flow and a folder, which have the U-Net's numbers."""
    run = write_run(tmp_path / "run", 2)
    extra = ["flow", {"name": "mine", "images": "x"}]
    write_json(run / "study.json", {"settings": {"generators": [*paper.GENERATORS, *extra]}})
    for path in sorted(run.glob("subset-*/results/*.json")):
        content = read_json(path)
        for name in ("flow", "mine"):
            if path.stem in ("quality", "memorisation"):
                content["rows"] += [row | {"generator": name} for row in content["rows"] if row["generator"] == "unet"]
            elif "unet" in path.stem and not (path.stem == "unet" and name == "mine"):
                other = json.loads(json.dumps(content).replace('"unet"', f'"{name}"').replace("-unet-", f"-{name}-"))
                write_json(path.with_name(path.name.replace("unet", name)), other)
        write_json(path, content)
    return load(run, 2)


def test_all_arms_of_other_generators_are_read(results):
    assert generators_of(results) == ["histogan", "unet", "dit", "flow", "mine"]
    assert set(results.loc[results["status"] != "ok", "arm"]) == {"traditional-2x"}, "as a probe"
    tested = results[(results["kind"] == "classification") & (results["metric"] == "auc")]
    arms = classifiers(generators_of(results))
    assert set(tested["arm"]) == {arm.name for arm in arms} and len(arms) == len(ARMS) + 18


def test_the_order_is_the_papers_with_others_at_the_end_of_their_section():
    assert image_sets(paper.GENERATORS) == IMAGE_SETS and classifiers(paper.GENERATORS) == ARMS
    arms = classifiers([*paper.GENERATORS, "flow"])
    at = arms.index(Arm("transfer", "flow", "realism"))
    assert arms[at - 1] == Arm("transfer", "dit", "realism") and tuple(a for a in arms if a.generator != "flow") == ARMS


def test_tables_and_figures_have_them(results):
    first = quality_tables.table_1(results, "judge-a").data
    rows = [("No image selection", generators.label(g)) for g in generators_of(results)]
    assert list(first.index[:5]) == rows and rows[3][1] == "Rectified flow"
    unet, flow = (first.loc[("Realism score", generators.label(g))] for g in ("unet", "flow"))
    assert all(flow[column] == unet[column] for column in first.columns if column[1] == "ours")
    second = tables.table_2(results).data
    assert ("Synthetic images only", "mine (class-based)") in second.index
    assert ("Realism score", "Rectified flow transfer") in second.index and len(second) == len(ARMS) + 18
    assert len(tables.table_differences(results).data) == len(second)
    for figure in (result_plots.quality_figure_4(results, "judge-a"), result_plots.auc_figure_6(results)):
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend[:5] == ["HistoGAN", "U-Net", "DiT", "Rectified flow", "mine"]
    assert len(result_plots.auc_figure_5(results).axes) == 5
    names = [label.get_text() for place in result_plots.forest(results).axes for label in place.get_yticklabels()]
    assert len(names) == len(second) - 1 - 5, "without the reference and the trivial baselines"
