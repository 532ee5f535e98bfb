"""Tables and figures follow the generators of a run, in the paper's order with others behind."""

import json

import numpy as np
import pytest
from made_up import edit, write_run
from small_selection import GATE, Sampler

from pcamlib import data
from pcamlib.core import paper
from pcamlib.core.files import read_json, write_json
from pcamlib.experiments import selection
from pcamlib.models import generators
from pcamlib.report import (
    auc_tables,
    findings,
    patch_plots,
    publish,
    published_page,
    quality_tables,
    result_plots,
)
from pcamlib.results import compact, load
from pcamlib.results.arms import ARMS, IMAGE_SETS, PSEUDO, Arm, classifiers, generators_of, image_sets


def with_generators(run, listed, names):
    """A run of made-up numbers in which `names` are further generators, which have the U-Net's; study.json lists
    `listed`."""
    write_json(run / "study.json", {"settings": {"generators": listed}})
    for path in sorted(run.glob("subset-*/results/*.json")):
        content = read_json(path)
        for name in names:
            if path.stem in ("quality", "memorisation", "label-content"):
                content["rows"] += [row | {"generator": name} for row in content["rows"] if row["generator"] == "unet"]
            elif "unet" in path.stem and not (path.stem == "unet" and name == "mine"):
                other = json.loads(json.dumps(content).replace('"unet"', f'"{name}"').replace("-unet-", f"-{name}-"))
                write_json(path.with_name(path.name.replace("unet", name)), other)
        write_json(path, content)
    return run


@pytest.fixture
def results(tmp_path):
    """A run with two more generators, a rectified flow and a folder."""
    listed = [*paper.GENERATORS, "flow", {"name": "mine", "images": "x"}]
    return load(with_generators(write_run(tmp_path / "run", 2), listed, ("flow", "mine")), 2)


@pytest.fixture
def unet_and_flow(tmp_path):
    """A run whose profile lists these two only."""
    run = with_generators(write_run(tmp_path / "unet-flow", 2), ["unet", "flow"], ("flow",))
    for path in sorted(run.glob("subset-*/results/*.json")):
        if any(name in path.stem for name in ("histogan", "dit")):
            path.unlink()
        elif path.stem in ("quality", "memorisation", "label-content"):
            edit(
                path,
                lambda content: content.update(
                    rows=[r for r in content["rows"] if r["generator"] not in ("histogan", "dit")]
                ),
            )
    return run


def test_all_arms_of_other_generators_are_read(results):
    assert generators_of(results) == ["histogan", "unet", "dit", "flow", "mine"]
    assert set(results.loc[results["status"] != "ok", "arm"]) == {"traditional-2x"}, "as a probe"
    tested = results[(results["kind"] == "classification") & (results["metric"] == "auc")]
    arms = classifiers(generators_of(results))
    assert set(tested["arm"]) == {arm.name for arm in arms if arm not in PSEUDO} and len(arms) == len(ARMS) + 18


def test_the_order_is_the_papers_with_others_at_the_end_of_their_section():
    assert image_sets(paper.GENERATORS) == IMAGE_SETS and classifiers(paper.GENERATORS) == ARMS
    arms = classifiers([*paper.GENERATORS, "flow"])
    at = arms.index(Arm("transfer", "flow", "realism"))
    assert arms[at - 1] == Arm("transfer", "dit", "realism") and tuple(a for a in arms if a.generator != "flow") == ARMS


@pytest.mark.slow
def test_tables_and_figures_have_them(results):
    first = quality_tables.table_1(results, "judge-a").data
    rows = [("No image selection", generators.label(g)) for g in generators_of(results)]
    assert list(first.index[:5]) == rows and rows[3][1] == "Rectified flow"
    unet, flow = (first.loc[("Realism score", generators.label(g))] for g in ("unet", "flow"))
    assert flow.tolist() == unet.tolist()
    second = auc_tables.table_2(results).data
    assert ("Synthetic images only", "mine (class-based)") in second.index
    assert ("Realism score", "Rectified flow transfer") in second.index and len(second) == len(ARMS) + 18 - 2
    assert all(len(table.data) == len(second) for table in auc_tables.tables_differences(results))
    for figure in (result_plots.quality_figure_4(results, "judge-a"), result_plots.auc_figure_6(results)):
        legend = [text.get_text() for text in figure.legends[0].get_texts()]
        assert legend[:5] == ["HistoGAN", "U-Net", "DiT", "Rectified flow", "mine"]
    assert len(result_plots.auc_figure_5(results).axes) == 5
    names = [label.get_text() for place in result_plots.forest(results).axes for label in place.get_yticklabels()]
    assert len(names) == len(second) - 1 - 5, "without the reference and the trivial baselines"


@pytest.mark.slow
def test_a_run_of_unet_and_flow_is_published_whole(unet_and_flow, tmp_path):
    images = np.random.default_rng(0).integers(0, 255, (30, 96, 96, 3), np.uint8)
    for k in (0, 1):
        of_subset = unet_and_flow / f"subset-{k}"
        data.write(of_subset / "synthetic" / "flow-none", "train", images, np.arange(30) % 2)
        card = {"provenance": read_json(of_subset / "results" / "flow.json")["provenance"]}
        card["scores"] = {"realism": np.linspace(0.5, 1.5, 30).tolist()}
        write_json(of_subset / "synthetic" / "flow-none" / "card.json", card)
    folder = tmp_path / "reference"
    path = publish.publish(unet_and_flow, 2, folder)
    kept = compact.read(path)
    assert "transfer-flow-realism" in set(kept.loc[kept["status"] == "ok", "arm"])
    assert [p.name for p in (folder / "sheets" / "unet-flow").iterdir()] == ["flow.png"]
    assert {p.stem for p in (folder / "curves" / "unet-flow").glob("*.png")} == {"autoencoder", "unet", "flow"}
    log = read_json(folder / "curves" / "unet-flow" / "log.json")
    assert log["flow"]["subset 1"][0]["images"] == 1000
    summary = publish.summary(kept, "unet-flow")
    assert "| Rectified flow, transfer | – | 87.70 ± 0.71 |" in summary and "HistoGAN, transfer" not in summary
    page = published_page.page(kept, {}, folder)
    assert "Patches by Rectified flow" in page and "Training curves of Rectified flow" in page
    assert "Rectified flow 1,000" in page and "Rectified flow transfer" in page


def test_sentences_have_every_generator_and_the_papers_value_where_there_is_one(results, unet_and_flow):
    text = " ".join(findings.findings_quality(results, "judge-a"))
    order = "DiT 40.50 ± 0.71, U-Net 50.50 ± 0.71, Rectified flow 50.50 ± 0.71, mine 50.50 ± 0.71, "
    order += "HistoGAN 100.50 ± 0.71"
    assert f"{order}; the paper has the same order" in text
    assert "DiT +5.00 (paper +4.32), Rectified flow +5.00, mine +5.00." in text
    text = " ".join(findings.findings_classification(results))
    assert "DiT 3 of 6 (paper 3 of 6), Rectified flow 5 of 6, mine 5 of 6." in text
    assert "Rectified flow +2.00, mine +2.00 (paper: HistoGAN" in text
    two = load(unet_and_flow, 2)
    text = " ".join(findings.findings_quality(two, "judge-a") + findings.findings_classification(two))
    assert "U-Net 50.50 ± 0.71, Rectified flow 50.50 ± 0.71; the paper has the same order" in text
    assert findings.gaps(two) and "Rectified flow" not in " ".join(findings.gaps(two)), "nothing of it is missing"
    assert "Rectified flow 71.70 %, U-Net 71.70 %" in text


def test_figure_3_has_the_profiles_generators(open_tiny):
    s = open_tiny(generators=["unet", "flow"])
    samples = result_plots.saved_samples(s)
    assert list(samples) == ["unet", "flow"] and samples["flow"] == {}, "nothing has run"
    selection.select(s, "flow", Sampler(s), GATE)
    samples = result_plots.saved_samples(s)
    figure = patch_plots.samples_figure_3(samples)
    assert [axes.get_ylabel() for axes in figure.axes[::12]] == ["U-Net", "Rectified flow"] and len(figure.axes) == 24
    drawn = [bool(axes.images) for axes in figure.axes]
    assert not any(drawn[:12]) and all(drawn[12:16]), "without selection both classes are there"
