"""A device that a colour histogram beats measures nothing."""

from pcamlib.results.device import Device, device


def row(regime, auc, status="ok"):
    return {"regime": regime, "auc": auc, "status": status}


def test_the_best_baseline_is_the_rival_and_seeds_are_averaged():
    rows = [row("traditional", 0.88), row("traditional", 0.92), row("colour", 0.86), row("texture", 0.91)]
    rows += [row("double-real", 0.99), row("shuffled-labels", 0.95), row("random-features", 0.99, status="not run")]
    assert device(rows) == Device(0.90, "texture", 0.91) and not device(rows).measures
    assert device(rows[:3]).measures


def test_without_either_side_nothing_is_said():
    assert device([row("traditional", 0.9)]) is None and device([row("colour", 0.9)]) is None
