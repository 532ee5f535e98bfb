"""Arms: their names, their order, and that there is one list of each."""

from pcamlib.core import paper
from pcamlib.results.arms import (
    ARMS,
    BASELINE,
    CONTROLS,
    IMAGE_SETS,
    JUDGED,
    PROBED,
    PSEUDO,
    TRADITIONAL,
    Arm,
    of_source,
)

BEST = Arm("transfer", "unet", "realism")


def test_names():
    assert (BEST.name, BEST.id, BEST.title) == ("transfer-unet-realism",) * 2 + ("U-Net transfer (realism)",)
    assert BEST._replace(seed=2).id == "transfer-unet-realism-seed2" and BEST._replace(seed=2).name == BEST.name
    assert BASELINE.name == "baseline" and TRADITIONAL.title == "Traditional augmentation"
    assert len({arm.name for arm in ARMS}) == len(ARMS)


def test_transfer_starts_from_the_synthetic_arm_of_its_seed():
    assert BEST._replace(seed=1).source == Arm("synthetic", "unet", "realism", seed=1)
    assert Arm("transfer-real").source == TRADITIONAL and TRADITIONAL.source is None


def test_all_arms_of_the_paper_and_the_controls():
    assert ARMS[:20] == tuple(Arm(row.regime, row.generator, row.selection) for row in paper.TABLE_2)
    assert [arm.regime for arm in ARMS[20:29]] == ["synthetic"] * 9 and ARMS[29:32] == CONTROLS
    assert [arm.control for arm in ARMS] == [False] * 29 + [True] * 14 and ARMS[32:34] == PSEUDO
    trained = [arm for generator in (None, *paper.GENERATORS) for arm in of_source(generator)]
    assert sorted([*trained, *PSEUDO], key=str) == sorted(ARMS, key=str) and set(PSEUDO) < set(PROBED)
    for arm in trained:
        assert arm.source is None or trained.index(arm.source) < trained.index(arm)


def test_image_sets_are_in_the_order_of_table_1():
    assert list(IMAGE_SETS) == [(row.generator, row.selection) for row in paper.TABLE_1]
    assert JUDGED[9:] == (("real", None), ("autoencoder", None))
