"""Table 2 and the paired differences: rows, order, formatting, notes, and HTML that holds together."""

from __future__ import annotations

from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from made_up import edit, measured, not_run, write_run

from pcamlib.core import paper
from pcamlib.core.text import inert
from pcamlib.report import auc_tables, quality_tables, tables
from pcamlib.report.tables import HEADINGS, Table
from pcamlib.results import frame, load
from pcamlib.results.arms import BASELINE, TRADITIONAL

AUC, MINUS_BASELINE, MINUS_TRADITIONAL = HEADINGS["auc"], "minus baseline", "minus traditional augmentation"


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


@pytest.fixture
def df(run):
    return load(run, 2)


def differences(df, found=None):
    """The tables of differences by what is subtracted."""
    return {table.title.split(": ")[1]: table.data for table in auc_tables.tables_differences(df, found=found)}


@pytest.mark.parametrize(
    "summary, metric, of, text",
    [
        ((0.85049, 0.00434, 2), "auc", 2, "85.05 ± 0.43"),
        ((35.7, 2.549, 2), "fid", 2, "35.70 ± 2.55"),
        ((0.0712, 0.0031, 2), "fid", 2, "0.071 ± 0.003"),
        ((0.5, np.nan, 1), "recall", 1, "50.00 (n = 1)"),
        ((0.5, 0.1, 2), "recall", 3, "50.00 ± 10.00 (n = 2)"),
        ((0.0125, 0.001, 2), "kid", 2, "12.50 ± 1.00"),
    ],
)
def test_cell(summary, metric, of, text):
    assert tables.cell(*summary, metric, of) == text


def test_table_2_has_20_9_and_3_rows_in_order(df):
    data = auc_tables.table_2(df).data
    assert len(data) == 20 + 9 + 3 + 4 + 5
    printed = auc_tables.paper_table_2().data
    assert printed[AUC].tolist() == [row.auc.printed for row in paper.TABLE_2]
    assert list(printed.index) == list(data.index[:20]), "the same rows, so that they can be laid beside each other"
    sections = data.index.get_level_values(0)
    assert set(sections[20:29]) == {"Synthetic images only"}
    assert set(sections[29:32]) == {"Controls (ours, not in the paper)"}
    assert set(sections[32:36]) == {"Stronger augmentation of real images (ours)"}
    assert set(sections[36:]) == {"Trivial baselines (ours)"}
    probed = auc_tables.table_2(frame.by_device(df, "probe")).data
    controls = probed.loc["Controls (ours, not in the paper)"]
    assert list(controls.index[-2:]) == ["Pseudo-labels, as many as real", "Pseudo-labels, up to 4,000"]
    assert controls[AUC].iloc[-1] == "89.50 ± 0.71"  # 87 and 88, two points more by the probe
    ours, images = data[AUC], data["real + synthetic images"]
    assert ours["Real images only", "Baseline"] == "80.50 ± 0.71"
    assert ours["Class-based realism score", "U-Net transfer"] == "87.70 ± 0.71"  # 86 + 1 + 0.2, and a point more
    assert ours["Synthetic images only", "HistoGAN (realism)"] == "67.90 ± 0.71"
    assert images["Class-based realism score", "U-Net transfer"] == "256 + 256"
    assert images["Synthetic images only", "HistoGAN (realism)"] == "0 + 256"
    assert set(data["seeds"]) == {"1"}
    interval = (  # 80 and 81: t from a table
        f"{80.5 - 12.706204736432095 * 0.5:.2f} to {80.5 + 12.706204736432095 * 0.5:.2f}"
    )
    assert data.loc[("Real images only", "Baseline"), "95 % interval of the AUC"] == interval
    more = auc_tables.table_2_more(df).data
    assert list(more.index) == list(data.index) and list(more) == [
        HEADINGS[m] for m in ("accuracy", "sensitivity", "specificity", "ece")
    ]


def test_cells_of_partial_results(run):
    not_run(run / "subset-0/results/classification-unet.json", regime="transfer", selection="class")
    for subset in (0, 1):
        not_run(run / f"subset-{subset}/results/classification-histogan.json", selection="realism")
    df = load(run, 2)
    data, best = auc_tables.table_2(df).data, ("Class-based realism score", "U-Net transfer")
    assert data.loc[best, AUC] == "88.20 (n = 1)"
    assert data.loc[best, "95 % interval of the AUC"] == tables.ONE_SUBSET
    assert set(data.loc[("Realism score", "HistoGAN augmentation")]) == {"not run"}
    minus = differences(df)[MINUS_BASELINE].loc[best]
    assert (minus["mean ± sd"], minus["95 % t interval"]) == ("+7.20 (n = 1)", tables.ONE_SUBSET)


def test_differences(df):
    data = differences(df)
    assert list(data) == [
        MINUS_TRADITIONAL,
        "minus the stronger control (Traditional, twice the steps)",
        MINUS_BASELINE,
    ]
    assert all(len(minus) == 32 + 9 for minus in data.values())
    row = ("No image selection", "HistoGAN augmentation")  # 81 against 80 and 85 in both subsets
    assert data[MINUS_BASELINE].loc[row, "mean ± sd"] == "+1.00 ± 0.00"
    assert data[MINUS_TRADITIONAL].loc[row, "mean ± sd"] == "−4.00 ± 0.00"
    assert data[MINUS_TRADITIONAL].loc[row, "95 % t interval"] == "none: the same in every subset"
    assert data[MINUS_BASELINE].loc[("Real images only", "Baseline"), "mean ± sd"] == "reference"


def test_equal_differences_have_no_interval():
    """Three subsets that show the same difference are no certainty: no interval, and the exact p of the sign flips."""
    df = measured({BASELINE: [0.7, 0.8, 0.9], TRADITIONAL: [0.75, 0.85, 0.95]})
    table = auc_tables.tables_differences(df)[-1]
    row = table.data.loc[("Real images only", "Traditional augmentation")]
    assert row.tolist() == ["+5.00 ± 0.00", "not run", "0.250", "none: the same in every subset", "0.25", "–"]
    assert (
        table.line.startswith("No verdict. Mean ± standard deviation over 3 subsets") and tables.SMALL_N in table.notes
    )
    assert "at best 0.25 with 3 subsets" in table.notes and "No verdict. No trivial baseline was run." in table.notes
    assert "equal in all subsets have no interval" in table.notes
    interval = auc_tables.table_2(measured({BASELINE: [0.7] * 3}, n_real=256, n_synthetic=0)).data[
        "95 % interval of the AUC"
    ]
    assert interval["Real images only", "Baseline"] == "none: the same in every subset"


def test_differences_that_vary_have_students_interval():
    df = measured({BASELINE: [0.80, 0.60, 0.90], TRADITIONAL: [0.81, 0.62, 0.93]})
    row = differences(df)[MINUS_BASELINE].loc[("Real images only", "Traditional augmentation")]
    half = 100 * 4.302652729911275 * 0.01 / 3**0.5  # t quantile 0.975 with 2 degrees of freedom, from a table
    assert row["95 % t interval"] == f"−{half - 2:.2f} to +{2 + half:.2f}"
    assert row["mean ± sd"] == "+2.00 ± 1.00" and row["g"] == "+1.13"


def test_differences_show_the_intervals_with_patches(df):
    drawn = {"mean": 0.01, "low": -0.005, "high": 0.02, "p": 0.02, "q": 0.06}  # also as an AUC, which ends at 0
    arm = {"regime": "traditional", "generator": None, "selection": None}
    same = {"mean": 0.0, "low": None, "high": None, "p": None, "q": None}
    arms = [
        arm | {"auc": drawn, "baseline": drawn, "traditional": None, "traditional-2x": drawn},
        arm | {"regime": "double-real", "auc": same, "baseline": same, "traditional": same},
    ]
    found = {"slides": None, "test_n": 3000, "rows": arms}
    table = auc_tables.tables_differences(df, found=found)[0]
    minus = differences(df, found)[MINUS_BASELINE]
    row = minus.loc[("Real images only", "Traditional augmentation")]
    assert (row[tables.WITH_PATCHES], row["q"]) == ("−0.50 to +2.00", "0.060")
    row = minus.loc[("Controls (ours, not in the paper)", "Twice the real data")]
    assert (row[tables.WITH_PATCHES], row["q"]) == ("none: the same in every subset", "–")
    stronger = differences(df, found)["minus the stronger control (Traditional, twice the steps)"]
    row = stronger.loc[("Real images only", "Traditional augmentation")]
    assert (row["mean ± sd"], row[tables.WITH_PATCHES]) == ("−1.00 ± 0.00", "−0.50 to +2.00")
    interval = auc_tables.table_2(df, found).data["95 % interval of the AUC"]
    assert interval["Real images only", "Traditional augmentation"] == "0.00 to 2.00"
    assert "3,000 test patches" in table.notes and "too narrow" in table.notes
    by_slide = auc_tables.tables_differences(df, found=found | {"slides": 40})[0].notes
    assert "by slide (40 slides)" in by_slide and "too narrow" not in by_slide
    assert "No test scores were kept" in auc_tables.tables_differences(df, "accuracy", found)[0].notes


def test_a_second_table_2_by_probes(df):
    probe = frame.by_device(df, "probe")
    first, second = auc_tables.table_2(df), auc_tables.table_2(probe)
    assert second.title.startswith("Table 2 by probes") and list(second.data) == list(first.data)
    assert second.data.loc[("Real images only", "Baseline"), AUC] == "82.50 ± 0.71"
    assert second.data.loc[("Controls (ours, not in the paper)", "Traditional, twice the steps"), AUC] == "not run"
    assert second.data.loc[("Trivial baselines (ours)", "Colour histogram"), AUC] == "78.50 ± 0.71"
    assert ("Stronger augmentation of real images (ours)", "Mixup") not in second.data.index
    assert [table.title for table in auc_tables.tables_differences(probe)] == [
        "Paired differences of probes: minus traditional augmentation",
        "Paired differences of probes: minus the stronger control (Transfer, real to real)",
        "Paired differences of probes: minus baseline",
    ]


def test_no_negative_zero():
    assert [tables.points(x) for x in (-0.00001, 0.0, 0.0055, -0.0055)] == ["+0.00", "+0.00", "+0.55", "−0.55"]


def test_notes_state_the_provenance_and_what_is_not_comparable(df):
    for table in (quality_tables.table_1(df, "judge-a"), auc_tables.table_2(df)):
        for part in ("phantom", "profile demo", "2 subsets of 256", "cpu", " s;", "pcamlib 0.1.0+abc"):
            assert part in table.notes
        assert "not comparable with ours in absolute value" in table.notes
    for printed in (quality_tables.paper_table_1(), auc_tables.paper_table_2()):
        for part in ("ImageNet", "ull PCam", "five subsets of 26,215"):
            assert part in printed.notes
    assert "1,024 test patches, decision threshold 0.5" in auc_tables.table_2(df).notes


def test_provenance_table(df):
    data = tables.table_provenance(df).data
    assert data.loc["subsets"].tolist() == ["2", "5"]
    assert data.loc["real patches per subset"].tolist() == ["256", "26,215"]
    assert data.loc["test patches"].tolist() == ["1,024", "32,768"]
    assert data.loc["quality judged by", "this run"] == "judge-a, judge-b"
    assert "nothing here is a finding about tissue" in data.loc["data", "this run"]


class Cells(HTMLParser):
    """Number of columns of every table row, the nesting, and what headers are of."""

    def __init__(self):
        super().__init__()
        self.open, self.widths, self.text, self.reserved, self.scopes = [], [], "", 0, []

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        attrs = dict(attrs)
        if tag == "tr":
            self.widths.append(self.reserved)
            self.reserved = 0
        if tag == "th":
            self.scopes.append(attrs["scope"])
        if tag in ("td", "th"):
            self.widths[-1] += int(attrs.get("colspan", 1))
            self.reserved += int(attrs.get("rowspan", 1)) - 1

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_html_is_balanced_rectangular_and_complete(df):
    everything = [quality_tables.table_1(df, "judge-a"), auc_tables.table_2(df), *auc_tables.tables_differences(df)]
    everything += [auc_tables.table_2_more(df), quality_tables.paper_table_1(), auc_tables.paper_table_2()]
    for table in [*everything, tables.table_provenance(df)]:
        html, parser = tables.render(table), Cells()
        parser.feed(html)
        assert parser.open == []
        assert set(parser.widths) == {1 + table.data.shape[1]}
        sections = set(table.data.index.get_level_values(0)) if table.data.index.nlevels == 2 else ()
        assert len(parser.widths) == table.data.columns.nlevels + len(sections) + len(table.data)
        assert parser.scopes.count("row") == len(table.data) and parser.scopes.count("rowgroup") == len(sections)
        for text in [*table.data.to_numpy().ravel(), table.notes, table.line]:
            assert text in parser.text
        title = inert(table.title, "html")
        assert f'role="region" tabindex="0" aria-label="{inert(table.title, "html")}"' in html
        assert f"<caption>{title}</caption>" in html and "\n" not in html
        assert 'class="dataframe"' in html and "overflow-x:auto" in html
        assert html == tables.render(table), "a page is the same when it is built again"


def test_html_is_escaped():
    data = pd.DataFrame({("h & i", "<i>"): ["R & D"]}, index=pd.MultiIndex.from_tuples([("a < b", "<b>")]))
    html = tables.render(Table('"q"', data, "1 < 2"))
    assert "a &lt; b" in html and "&lt;b&gt;" in html and "R &amp; D" in html and "&lt;i&gt;" in html
    assert (
        "<b>" not in html
        and "<i>" not in html
        and "1 &lt; 2" in html
        and 'aria-label="&#34;q' in html.replace("&quot;", "&#34;")
    )


def test_auc_by_centre_has_a_column_each(run):
    assert auc_tables.table_centres(load(run, 2)) is None, "nobody knows the centres"
    for k in (0, 1):
        by_centre = {"A": {"patches": 600, "auc": 0.8 + k / 10}, "B": {"patches": 424, "auc": None}}
        for name in ("classification-real", "probe-real"):
            path = run / f"subset-{k}/results/{name}.json"
            edit(path, lambda content: [r.update(centres=by_centre) for r in content["rows"] if r["status"] == "ok"])
    df = load(run, 2)
    for device in frame.DEVICES:
        table = auc_tables.table_centres(frame.by_device(df, device))
        assert list(table.data) == ["A (600 patches)", "B (424 patches)"]
        assert table.data.loc[("Real images only", "Baseline")].tolist() == ["85.00 ± 7.07", "not run"]
        assert set(table.data.loc[("Synthetic images only", "DiT (none)")]) == {"not run"}
        assert "of one class: B." in table.notes and ("by probes" in table.title) == (device == "probe")
    whole, measured = load(run, 2), frame.by_device(df, "classification")
    assert auc_tables.table_2(measured).data.loc[("Real images only", "Baseline"), AUC] == "80.50 ± 0.71"
    assert len(whole) == len(df)
