"""The paper's numbers: complete, in order, and consistent with each other."""

from __future__ import annotations

import math
import re

import pytest
import yaml

from pcamlib import metrics
from pcamlib.core import paper
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root


def test_table_1_is_in_print_order():
    assert [(row.selection, row.generator) for row in paper.TABLE_1] == [
        (selection, generator) for selection in paper.SELECTIONS for generator in paper.GENERATORS
    ]


def test_table_2_is_in_print_order():
    arms = [(row.selection, row.regime, row.generator) for row in paper.TABLE_2]
    assert arms[:2] == [(None, "baseline", None), (None, "traditional", None)]
    assert arms[2:] == [
        (selection, regime, generator)
        for selection in paper.SELECTIONS
        for regime in ("augmentation", "transfer")
        for generator in paper.GENERATORS
    ]


def test_values_are_what_was_printed():
    for row in (*paper.TABLE_1, *paper.TABLE_2):
        for value in vars(row).values():
            if isinstance(value, paper.Value):
                mean, sd = value.printed.split(" ± ")
                assert (value.mean, value.sd) == (float(mean), float(sd))
                assert 0 <= value.sd < 20


def test_lookups():
    assert paper.quality("none", "dit").f1 == paper.Value(17.9, 0.72, "17.9 ± 0.72")
    assert paper.quality("class", "histogan").recall.mean == 0.02
    assert paper.classification("realism", "unet", "transfer").auc == paper.Value(93.54, 0.38, "93.54 ± 0.38")
    assert paper.classification(None, None, "baseline").specificity.printed == "82.99 ± 1.42"
    assert paper.has_classification("class", "dit", "augmentation")
    assert not paper.has_classification("none", "dit", "synthetic")


@pytest.mark.parametrize("arguments", [("none", "stylegan"), ("best", "dit")])
def test_unknown_quality_row(arguments):
    with pytest.raises(StudyError, match="Table 1 of the paper has no row"):
        paper.quality(*arguments)


def test_synthetic_only_has_no_printed_row():
    with pytest.raises(StudyError, match="Table 2 of the paper has no row.*'synthetic'"):
        paper.classification("none", "dit", "synthetic")


def test_f1_is_close_to_the_harmonic_mean():
    # F1 was averaged over subsets, so the mean's F1 differs a little
    for row in paper.TABLE_1:
        p, r = row.precision.mean, row.recall.mean
        assert row.f1.mean == pytest.approx(2 * p * r / (p + r), abs=0.06)


def test_accuracy_is_the_mean_of_sensitivity_and_specificity():
    # PCam's test split is balanced
    for row in paper.TABLE_2:
        assert row.accuracy.mean == pytest.approx((row.sensitivity.mean + row.specificity.mean) / 2, abs=0.03)


def test_protocol_adds_up():
    p = paper.PROTOCOL
    assert p.subset_size == math.ceil(p.fraction * p.train)
    assert p.subsets * p.subset_size <= p.train


def test_claims_agree_with_the_tables():
    assert [claim.number for claim in paper.CLAIMS] == list(range(1, 14))
    best = max(paper.TABLE_2, key=lambda row: row.auc.mean)
    assert (best.generator, best.regime, best.selection) == ("unet", "transfer", "realism")
    assert str(best.auc.mean) in paper.CLAIMS[10].text
    for generator in paper.GENERATORS:
        for selection in ("realism", "class"):
            assert paper.quality(selection, generator).fid.mean > paper.quality("none", generator).fid.mean


def test_numbers_of_the_paper_in_the_prose_are_its_own():
    """Every number with two decimals in these chapters is printed in Table 1 or 2, or follows from values that are."""
    root = project_root() / "book"
    tables = [value for row in (*paper.TABLE_1, *paper.TABLE_2) for value in row.__dict__.values()]
    printed = {f"{x:.2f}" for value in tables if isinstance(value, paper.Value) for x in (value.mean, value.sd)}
    traditional = paper.classification(None, None, "traditional").auc.mean
    unet = {(r.regime, r.selection): r.auc.mean for r in paper.TABLE_2 if r.generator == "unet"}
    leads = [auc - traditional for auc in unet.values()]
    gains = [unet[regime, "realism"] - unet[regime, "none"] for regime in ("augmentation", "transfer")]
    first = paper.quality("none", "unet")
    f1 = metrics.improved_f1(first.precision.mean, first.recall.mean)
    printed |= {f"{x:.2f}" for x in (min(leads), max(leads), *gains, f1)}
    for name in ("introduction", "protocol", "method_selection", "metrics", "conclusion"):
        text = re.sub(r"\$[^$]+\$|arXiv \S+", "", (root / f"{name}.md").read_text())
        for number in re.findall(r"(?<![\d.,])\d+\.\d\d(?![\d.])", text):
            assert number in printed, f"{name}.md: {number} is in neither table of the paper"


def test_equations_carry_the_numbers_of_the_paper():
    """Sphinx numbers labelled equations in the order of the sidebar; a further label before one would shift it."""
    root, label = project_root(), re.compile(r"^\$\$ \((eq-[\w-]+)\)$", re.M)
    toc = yaml.safe_load((root / "_toc.yml").read_text())
    pages = [chapter["file"] for part in toc["parts"] for chapter in part["chapters"]]
    assert not any(label.search(path.read_text()) for path in (root / "notebooks").glob("*.md")), "shown more than once"
    labels = [
        name for page in pages if "executed" not in page for name in label.findall((root / f"{page}.md").read_text())
    ]
    wanted = {"eq-forward": 1, "eq-reverse": 2, "eq-simple": 9, "eq-realism": 11, "eq-f1": 12, "eq-fid": 13}
    assert {name: labels.index(name) + 1 for name in wanted} == wanted
