"""The device against trivial baselines, the stronger control, and arms chosen by networks that do not report them."""

from __future__ import annotations

import pandas as pd
import pytest
from made_up import measured, write_run

from pcamlib.results import frame, load, rivals
from pcamlib.results.arms import AGAIN, TRADITIONAL, TWICE, Arm

COLOUR, TEXTURE = Arm("colour"), Arm("texture")
A, B = Arm("transfer", "unet", "none"), Arm("transfer", "dit", "none")


def test_the_device_must_beat_the_best_trivial_baseline_in_the_mean():
    found = rivals.trust(measured({TRADITIONAL: [0.80, 0.88], COLOUR: [0.82, 0.84], TEXTURE: [0.7, 0.86]}))
    assert found.measures and "AUC 84.00 %, above" in found.sentence  # 83, the mean of colour, is the best
    assert "(colour histogram, 83.00 %)" in found.sentence and found.sentence.endswith("in 1 of 2 subsets")
    assert found.device.rival == "colour" and found.device.auc == pytest.approx(0.84)
    below = rivals.trust(measured({TRADITIONAL: [0.80, 0.84], COLOUR: [0.82, 0.84]}))
    assert below.measures is False and "82.00 %, not above the best" in below.sentence
    assert rivals.trust(measured({TRADITIONAL: [0.8]})) == (None, "No trivial baseline was run", None, "")
    assert rivals.trust(measured({COLOUR: [0.8]})).measures is None
    apart = rivals.trust(measured({TRADITIONAL: [0.8, None], COLOUR: [None, 0.8]}))
    assert apart.measures is None and apart.sentence.startswith("No subset has both")


def test_the_stronger_control_is_that_of_the_higher_mean(tmp_path):
    df = measured({TRADITIONAL: [0.8, 0.8], TWICE: [0.8, 0.84], AGAIN: [0.81, 0.82]})
    assert rivals.step_controls(df) == [TWICE, AGAIN] and rivals.stronger_control(df) == TWICE
    assert rivals.stronger_control(measured({TWICE: [0.9, None], AGAIN: [None, 0.95]})) == TWICE, "no common subset"
    assert rivals.stronger_control(measured({AGAIN: [0.8]})) == AGAIN
    assert rivals.stronger_control(measured({TRADITIONAL: [0.8]})) is None
    results = load(write_run(tmp_path / "run"), 2)
    probe = frame.by_device(results, "probe")
    assert frame.is_probe(probe) and not frame.is_probe(frame.by_device(results, "classification"))
    assert rivals.step_controls(probe) == [TRADITIONAL, AGAIN], "a regression has no steps"
    assert rivals.trust(probe).sentence.startswith("Traditional augmentation reaches AUC 87.50 %, above")


def both(test: dict, valid: dict) -> pd.DataFrame:
    return pd.concat([measured(test), measured(valid, "valid_auc")], ignore_index=True)


def seeds(arm: Arm, *by_seed: list[float]) -> dict[Arm, list[float]]:
    return {arm._replace(seed=i): values for i, values in enumerate(by_seed)}


def test_one_seed_chooses_and_the_others_report():
    # seed 0 prefers A and seed 1 prefers B, each by its luck; the other seed tells
    valid = seeds(A, [0.9, 0.9], [0.7, 0.7]) | seeds(B, [0.8, 0.8], [0.8, 0.8])
    test = seeds(A, [0.95, 0.95], [0.70, 0.72]) | seeds(B, [0.80, 0.82], [0.85, 0.85]) | {TRADITIONAL: [0.75, 0.76]}
    found = rivals.choice(both(test, valid), [A, B], TRADITIONAL)
    assert found.by == "seed" and sorted(found.arms) == sorted([(A, 1), (B, 1)])
    # A by its seed 1 (0.70, 0.72) and B by its seed 0 (0.80, 0.82), averaged: 0.75 and 0.77, minus traditional
    assert found.values == pytest.approx([0.0, 0.01])


def test_with_one_seed_the_other_subsets_choose():
    valid = {A: [0.9, 0.6, 0.7], B: [0.8, 0.8, 0.8]}
    test = {A: [0.95, 0.7, 0.7], B: [0.80, 0.81, 0.85], TRADITIONAL: [0.8, 0.8, 0.8]}
    found = rivals.choice(both(test, valid), [A, B], TRADITIONAL)
    # without subset 0: A 0.65, B 0.8; without 1: A 0.8, B 0.8, the first; without 2: A 0.75, B 0.8
    assert (found.by, found.arms) == ("subset", [(B, 2), (A, 1)]) and found.values == pytest.approx([0.0, -0.1, 0.05])


def test_what_cannot_be_chosen_is_none():
    one = both({A: [0.9], B: [0.8], TRADITIONAL: [0.8]}, {A: [0.9], B: [0.8]})
    assert rivals.choice(one, [A, B], TRADITIONAL) is None, "one subset and one seed"
    assert rivals.choice(one, [A, B], TWICE) is None
    missed = both({A: [0.9, None], B: [0.8, 0.7], TRADITIONAL: [0.8, 0.7]}, {A: [0.9, None], B: [0.8, 0.7]})
    assert rivals.choice(missed, [A, B], TRADITIONAL).arms == [(B, 2)], "only arms of all subsets"
