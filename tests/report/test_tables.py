"""Tables 1 and 2: rows, order, formatting, captions, and HTML that holds together."""

from __future__ import annotations

from html.parser import HTMLParser

import pytest
from made_up import edit, not_run, write_run

from pcamlib.core import paper
from pcamlib.report import quality_tables, tables
from pcamlib.report.tables import Table
from pcamlib.results import frame
from pcamlib.results.frame import Summary


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


@pytest.fixture
def rows(run):
    return frame.collect(run, 2)


def find(table: Table, section: str, label: str) -> dict:
    (row,) = [r for r in table.rows if r["section"].startswith(section) and r["label"] == label]
    return row


@pytest.mark.parametrize(
    "summary, metric, of, text",
    [
        (Summary(0.85049, 0.00434, (0.8, 0.9)), "auc", 2, "85.05 ± 0.43"),
        (Summary(35.7, 2.549, (35, 36)), "fid", 2, "35.70 ± 2.55"),
        (Summary(0.0712, 0.0031, (0.07, 0.08)), "fid", 2, "0.071 ± 0.003"),
        (Summary(0.5, None, (0.5,)), "recall", 1, "50.00 ± – (n = 1)"),
        (Summary(0.5, 0.1, (0.4, 0.6)), "recall", 3, "50.00 ± 10.00 (n = 2)"),
        (None, "auc", 2, "not run"),
    ],
)
def test_cell(summary, metric, of, text):
    assert tables.cell(summary, metric, of) == text


def test_table_1_has_the_papers_rows_then_calibration(rows):
    table = quality_tables.table_1(rows, "judge-a")
    names = ["HistoGAN", "U-Net", "DiT"]
    assert [row["label"] for row in table.rows] == names * 3 + list(quality_tables.CALIBRATION.values())
    assert [row["section"] for row in table.rows[:9:3]] == list(paper.SELECTION_HEADINGS.values())
    row = find(table, "Realism", "DiT")
    assert row["fid paper"] == "40.02 ± 1.78"
    assert row["fid"] == "45.50 ± 0.71"  # 45 and 46
    assert row["precision"] == "50.00 ± 0.00"
    assert row["images"] == "250"
    assert find(table, "Calibration", "VAE reconstructions (the cap)")["fid paper"] == "–"


def test_beside_table_1_stand_kid_density_coverage_and_acceptance(rows):
    table = quality_tables.table_1_more(rows, "judge-a")
    row = find(table, "Realism", "DiT")
    assert (row["kid"], row["density"], row["coverage"]) == ("12.50 ± 0.00", "1.10 ± 0.00", "90.00 ± 0.00")
    assert (row["accepted 0"], row["accepted 1"]) == ("75.00 ± 0.00", "43.00 ± 0.00")
    assert find(table, "No image", "DiT")["accepted 0"] == "–"
    assert (
        "subsets of 125 images" in table.caption and "at most 0.30" in table.caption and "gatekeeper" in table.caption
    )
    assert "k = 3, a sphere includes its surface" in table.caption


def test_memorisation_table_has_the_controls_and_each_subsets_p(rows):
    table = quality_tables.table_memorisation(rows)
    assert len(table.rows) == 11
    row = find(table, "Controls", "Reconstructions of training patches (everything is)")
    assert (row["nearer_train"], row["nearer_train p"]) == ("98.00 ± 0.00", "< 0.001, < 0.001")
    assert row["least_ratio"] == "0.10"
    assert find(table, "Class", "U-Net")["closer_than_new"] == "30.00 ± 0.00"
    assert "50.0 %" in table.caption
    nothing = quality_tables.table_memorisation([row for row in rows if row["kind"] != "memorisation"])
    assert {row["nearer_train"] for row in nothing.rows} == {"not run"}


def test_two_extractors_never_share_a_table(rows):
    a, b = (quality_tables.table_1(rows, judge) for judge in ("judge-a", "judge-b"))
    assert find(a, "No image", "U-Net")["fid"] == "50.50 ± 0.71"
    assert find(b, "No image", "U-Net")["fid"] == "505.00 ± 7.07"
    assert "judge-b" not in a.title + a.caption and "judge-b" in b.title and "judge-b" in b.caption


def test_table_1_without_quality_says_so_everywhere(rows):
    table = quality_tables.table_1([row for row in rows if row["kind"] != "quality"], "judge-a")
    assert len(table.rows) == 11
    assert {row["fid"] for row in table.rows} == {row["images"] for row in table.rows} == {"not run"}
    assert table.rows[0]["fid paper"] == "126.71 ± 17.13"


def test_table_2_has_20_9_and_3_rows_in_order(rows):
    table = tables.table_2(rows)
    assert len(table.rows) == 20 + 9 + 3
    assert [row["auc paper"] for row in table.rows[:20]] == [row.auc.printed for row in paper.TABLE_2]
    assert {row["auc paper"] for row in table.rows[20:]} == {"–"}
    assert {row["section"] for row in table.rows[20:29]} == {"Synthetic images only"}
    assert {row["section"] for row in table.rows[29:]} == {"Controls (ours, not in the paper)"}
    assert find(table, "Real", "Baseline")["auc"] == "80.50 ± 0.71"
    assert find(table, "Class", "U-Net transfer")["auc"] == "87.70 ± 0.71"  # 86 + 1 + 0.2, and a point more
    assert find(table, "Class", "U-Net transfer")["images"] == "256 + 256"
    assert find(table, "Synthetic", "HistoGAN (realism)")["auc"] == "67.90 ± 0.71"
    assert find(table, "Synthetic", "HistoGAN (realism)")["images"] == "0 + 256"


def test_cells_of_partial_results(run):
    not_run(run / "subset-0/results/classification-unet.json", regime="transfer", selection="class")
    for subset in (0, 1):
        not_run(run / f"subset-{subset}/results/classification-histogan.json", selection="realism")
    not_run(run / "subset-1/results/quality.json", generator="dit", selection="class")
    rows = frame.collect(run, 2)
    table = tables.table_2(rows)
    assert find(table, "Class", "U-Net transfer")["auc"] == "88.20 ± – (n = 1)"
    row = find(table, "Realism", "HistoGAN augmentation")
    assert {row[key] for key in ("images", "accuracy", "auc", "sensitivity", "specificity")} == {"not run"}
    assert find(quality_tables.table_1(rows, "judge-a"), "Class", "DiT")["fid"] == "46.00 ± – (n = 1)"
    row = find(tables.table_differences(rows), "Class", "U-Net transfer")
    assert (row["baseline mean"], row["baseline each"]) == ("+7.20 ± –", "subset 1: +7.20")


def test_differences(rows):
    table = tables.table_differences(rows)
    assert len(table.rows) == 32
    row = find(table, "No image", "HistoGAN augmentation")  # 81 against 80 and 85 in both subsets
    assert row["baseline mean"] == "+1.00 ± 0.00" and row["baseline each"] == "+1.00, +1.00"
    assert row["traditional mean"] == "−4.00 ± 0.00" and row["traditional interval"] == "n = 2 < 3"
    assert find(table, "Real", "Baseline")["baseline mean"] == "reference"


def test_three_subsets_have_an_interval(tmp_path):
    rows = frame.collect(write_run(tmp_path / "run", 3), 3)
    table = tables.table_differences(rows)
    row = find(table, "Real", "Traditional augmentation")
    assert row["baseline interval"] == "+5.00 to +5.00"
    assert (row["baseline flip"], row["baseline effect"], row["baseline bootstrap"]) == ("0.25", "–", "not run")
    assert row["baseline q"] == "0.250" and row["traditional q"] == ""
    assert "at best 0.25 with 3 subsets" in table.caption and "all of them are too narrow" in table.caption


def test_differences_show_the_bootstrap_of_the_auc(rows):
    drawn = {"mean": 0.01, "low": -0.005, "high": 0.02, "p": 0.02, "q": 0.06}  # also as an AUC, which ends at 0
    arms = [
        {
            "regime": "traditional",
            "generator": None,
            "selection": None,
            "auc": drawn,
            "baseline": drawn,
            "traditional": None,
        }
    ]
    table = tables.table_differences(rows, bootstrap={"draws": 1000, "test_n": 3000, "rows": arms})
    row = find(table, "Real", "Traditional augmentation")
    assert (row["baseline bootstrap"], row["baseline q"]) == ("−0.50 to +2.00", "0.060")
    row = find(tables.table_2(rows, {"rows": arms}), "Real", "Traditional augmentation")
    assert row["auc interval"] == "0.00 to 2.00"
    assert "1,000 redraws" in table.caption and "3,000 test patches" in table.caption
    assert "No bootstrap" in tables.table_differences(rows, "accuracy", {"draws": 1, "test_n": 1, "rows": arms}).caption


def test_results_of_before_calibration_and_seeds_are_read(run):
    for subset in (0, 1):
        for path in (run / f"subset-{subset}/results").glob("classification-*.json"):
            edit(path, lambda content: [(row.pop("ece"), row.pop("seed")) for row in content["rows"]])
        edit(
            run / f"subset-{subset}/results/quality.json",
            lambda c: [row.pop(m) for row in c["rows"] for m in ("kid", "kid_se", "kid_size", "density", "coverage")],
        )
    rows = frame.collect(run, 2)
    row = find(tables.table_2(rows), "Real", "Baseline")
    assert (row["ece"], row["seeds"], row["auc"], row["ece paper"]) == ("not run", "1", "80.50 ± 0.71", "–")
    assert row["auc interval"] == "n = 2 < 3"
    assert find(quality_tables.table_1_more(rows, "judge-a"), "No image", "DiT")["kid"] == "not run"


def test_no_negative_zero():
    assert [tables.points(x) for x in (-0.00001, 0.0, 0.0055, -0.0055)] == [
        "+0.00",
        "+0.00",
        "+0.55",
        "−0.55",
    ]


def test_captions_state_the_scale_and_what_is_not_comparable(rows):
    for table in (quality_tables.table_1(rows, "judge-a"), tables.table_2(rows)):
        for part in ("phantom", "profile demo", "2 subsets of 256", "cpu", " s;", "pcamlib 0.1.0+abc"):
            assert part in table.caption
        for part in ("ImageNet", "full PCam", "not comparable with ours in absolute value"):
            assert part in table.caption
    assert "judge-a (about judge-a)" in quality_tables.table_1(rows, "judge-a").caption
    assert "1,024 test patches" in tables.table_2(rows).caption
    assert "threshold 0.5" in tables.table_2(rows).caption


class Cells(HTMLParser):
    """Number of columns of every table row, and the nesting."""

    def __init__(self):
        super().__init__()
        self.open, self.widths, self.text, self.reserved = [], [], "", 0

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        attrs = dict(attrs)
        if tag == "tr":
            self.widths.append(self.reserved)
            self.reserved = 0
        if tag in ("td", "th"):
            self.widths[-1] += int(attrs.get("colspan", 1))
            self.reserved += int(attrs.get("rowspan", 1)) - 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_balanced_rectangular_and_complete(rows):
    everything = [quality_tables.table_1(rows, "judge-a"), tables.table_2(rows), tables.table_differences(rows)]
    for table in [*everything, tables.table_provenance(rows)]:
        parser = Cells()
        parser.feed(tables.render(table))
        assert parser.open == []
        assert set(parser.widths) == {1 + sum(len(columns) for _, columns in table.head)}
        headings = len({row["section"] for row in table.rows} - {""})
        assert len(parser.widths) == 2 + headings + len(table.rows)
        for row in table.rows:
            assert all(row[key] in parser.text for _, columns in table.head for key in columns)
        assert 'class="dataframe"' in tables.render(table) and "overflow-x:auto" in tables.render(table)


def test_html_is_escaped():
    row = {"section": "a < b", "label": "<b>", "x": "R & D"}
    html = tables.render(Table('"q"', [("h", {"x": "<i>"})], [row], "1 < 2"))
    assert "a &lt; b" in html and "&lt;b&gt;" in html and "R &amp; D" in html and "&lt;i&gt;" in html
    assert "<b>" not in html and "<i>" not in html


def test_scale_table(rows):
    table = tables.table_provenance(rows)
    values = {row["label"]: (row["ours"], row["paper"]) for row in table.rows}
    assert values["subsets"] == ("2", "5")
    assert values["real patches per subset"] == ("256", "26,215")
    assert values["test patches"] == ("1,024", "32,768")
    assert values["quality judged by"][0] == "judge-a, judge-b"
    assert "stand-in" in values["data"][0]
