"""Well-known data sets, made up file by file as they are handed out: known without a word, with the right counts."""

import h5py
import numpy as np
import pytest
from making import counts, put, rows_csv, write_csv

from pcamlib import data
from pcamlib.core.errors import StudyError
from pcamlib.data.convert import convert
from pcamlib.data.groups import meta_file

THIRDS = (0.4, 0.3, 0.3)


def test_kaggle(tmp_path):
    ids = [f"{i:040x}" for i in range(30)]
    for i, name in enumerate(ids):
        put(tmp_path / "k" / "train" / f"{name}.tif", seed=i)
    for i in range(5):
        put(tmp_path / "k" / "test" / f"{i:040x}.tif")
    write_csv(tmp_path / "k" / "train_labels.csv", ["id", "label"], [[name, i % 3 == 0] for i, name in enumerate(ids)])
    write_csv(
        tmp_path / "k" / "train_labels.csv", ["id", "label"], [[name, int(i % 3 == 0)] for i, name in enumerate(ids)]
    )
    write_csv(tmp_path / "k" / "sample_submission.csv", ["id", "label"], [[f"{i:040x}", 0] for i in range(5)])
    made = convert(tmp_path / "k", tmp_path / "out", fractions=THIRDS)
    assert made["layout"] == "Kaggle histopathologic-cancer-detection" and made["images"] == 30
    assert sum(p for _, p in counts(tmp_path / "out").values()) == 10 and data.classes(tmp_path / "out") == data.CLASSES
    assert "images of the competition's test set, which have no labels, left out: 5" in made["notes"]
    assert data.groups(tmp_path / "out", "train") is None
    by_csv = convert(tmp_path / "k" / "train_labels.csv", tmp_path / "again", fractions=THIRDS)
    assert by_csv["fingerprint"] == made["fingerprint"]


def wilds(root, centres):
    """Six patches (four of train, two of its validation) for each of two nodes of each patient; patient and centre as
    in WILDS."""
    rows = []
    for p, centre in enumerate(centres):
        for node in (1, 4):
            for i in range(6):
                patient, x, y, tumor = f"{p + 4:03}", 3328 + 32 * i, 21792, i % 2
                name = f"patient_{patient}_node_{node}"
                put(root / "patches" / name / f"patch_{name}_x_{x}_y_{y}.png", seed=len(rows))
                rows.append([len(rows), patient, node, x, y, tumor, 2 * p, centre, int(i >= 4)])
    return write_csv(
        root / "metadata.csv", ["", "patient", "node", "x_coord", "y_coord", "tumor", "slide", "center", "split"], rows
    )


def test_camelyon17_wilds(tmp_path):
    wilds(tmp_path / "w", (0, 1, 2, 3, 4))
    made = convert(tmp_path / "w", tmp_path / "out")
    assert made["layout"] == "Camelyon17-WILDS" and (made["groups"], made["centres"], made["images"]) == (5, 5, 48)
    assert counts(tmp_path / "out") == {"train": (24, 12), "valid": (12, 6), "test": (12, 6)}
    assert set(data.centres(tmp_path / "out", "train")) == {"0", "3", "4"}
    assert set(data.centres(tmp_path / "out", "test")) == {"2"} and set(data.groups(tmp_path / "out", "test")) == {
        "006"
    }
    assert any("validation patches of the training patients, left out: 12" in note for note in made["notes"])
    wilds(tmp_path / "part", (0, 3, 4))
    made = convert(tmp_path / "part", tmp_path / "out2", fractions=THIRDS)
    assert made["images"] == 36 and made["split"].startswith("drawn by group")


def test_mhist(tmp_path):
    rows = []
    for i in range(40):
        put(tmp_path / "m" / "images" / f"MHIST_{i:03}.png", size=(224, 224), seed=i)
        rows.append([f"MHIST_{i:03}.png", ("HP", "SSA")[i % 2], i % 8, "test" if i >= 28 else "train"])
    header = ["Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition"]
    write_csv(tmp_path / "m" / "annotations.csv", header, rows)
    with pytest.raises(StudyError, match="is 224x224, a patch is 96x96: choose --size"):
        convert(tmp_path / "m", tmp_path / "out")
    made = convert(tmp_path / "m", tmp_path / "out", size="resize")
    assert (
        made["layout"] == "MHIST" and made["classes"] == ["HP", "SSA"] and counts(tmp_path / "out")["test"] == (12, 6)
    )
    assert sum(n for n, _ in counts(tmp_path / "out").values()) == 40 and "valid drawn" in made["split"]


NCT = ["ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM"]


def test_nct_crc_he(tmp_path):
    for name in NCT:
        for i in range(12):
            put(tmp_path / "n" / "NCT-CRC-HE-100K" / name / f"{name}-{i:04}.tif", size=(224, 224))
        for i in range(2):
            put(tmp_path / "n" / "CRC-VAL-HE-7K" / name / f"{name}-TCGA-{i:04}.tif", size=(224, 224))
    made = convert(tmp_path / "n" / "NCT-CRC-HE-100K", tmp_path / "one", size="crop", positive="TUM", fractions=THIRDS)
    assert made["layout"] == "NCT-CRC-HE" and made["images"] == 108 and made["classes"] == ["not TUM", "TUM"]
    assert sum(p for _, p in counts(tmp_path / "one").values()) == 12 and made["labels"]["MUS"] == {
        "class": 0,
        "images": 12,
    }
    both = convert(tmp_path / "n", tmp_path / "both", size="crop")
    assert both["layout"] == "NCT-CRC-HE" and counts(tmp_path / "both")["test"] == (18, 2) and both["images"] == 126
    assert "class 1 is TUM, as is usual for NCT-CRC-HE" in both["notes"]
    for name in NCT:
        put(tmp_path / "n" / "NCT-CRC-HE-100K-NONORM" / name / "0.tif", size=(224, 224))
    with pytest.raises(StudyError, match="both with and without normalised colours: give one"):
        convert(tmp_path / "n", tmp_path / "out", size="crop")


def test_breakhis(tmp_path):
    root = tmp_path / "b" / "BreaKHis_v1" / "histology_slides" / "breast"
    for year, slide, letters, kind, name in (
        [(14, 22549 + i, ("AB", "CD")[i % 2], "B_A", "adenosis") for i in range(4)]
        + [(14, 4659, "", "B_TA", "tubular_adenoma")]
        + [(14, 15570 + i, "", "M_LC", "lobular_carcinoma") for i in range(4)]
        + [(14, 22549, "CD", "B_A", "adenosis")]
    ):
        for magnification in (40, 100, 200, 400):
            folder = (
                root
                / ("malignant" if kind[0] == "M" else "benign")
                / "SOB"
                / name
                / f"SOB_{kind}_{year}-{slide}{letters}"
            )
            for i in range(2):
                put(
                    folder / f"{magnification}X" / f"SOB_{kind}-{year}-{slide}{letters}-{magnification}-{i:03}.png",
                    size=(120, 140),
                )
    made = convert(tmp_path / "b", tmp_path / "out", size="crop", fractions=THIRDS, only="/40X/")
    assert made["layout"] == "BreakHis" and made["images"] == 20 and made["groups"] == 9, (
        "two blocks of a case are one patient"
    )
    assert made["classes"] == ["benign", "malignant"] and sum(p for _, p in counts(tmp_path / "out").values()) == 8
    home = {}
    for row in rows_csv(tmp_path / "out"):
        home.setdefault(row["group"], set()).add(row["split"])
    assert all(len(splits) == 1 for splits in home.values()) and "14-22549" in home
    whole = convert(tmp_path / "b", tmp_path / "all", size="crop", fractions=THIRDS)
    assert whole["images"] == 80 and any(
        "magnifications are mixed (100X 20, 200X 20, 400X 20, 40X 20)" in n for n in whole["notes"]
    )


def add_meta(root, slide, rows=None):
    """PCam's three lists beside its files; `rows` are the official rows of an excerpt."""
    for split in data.SPLITS:
        labels = data.labels(root, split)
        index = rows[split] if rows else np.arange(len(labels))
        lines = [[i, 0, 0, False, False, "nobody"] for i in range(max(index) + 1)]
        for i, label in zip(index, labels):
            lines[i] = [i, 100 + i, 200, bool(label), bool(label), slide(split, i)]
        write_csv(meta_file(root, split), ["", "coord_y", "coord_x", "tumor_patch", "center_tumor_patch", "wsi"], lines)


def copy(pcam, root):
    root.mkdir()
    for split in data.SPLITS:
        data.write(root, split, *data.load(pcam, split))
    return root


def test_pcam_with_its_lists(pcam, tmp_path):
    root = copy(pcam, tmp_path / "pcam")
    with pytest.raises(StudyError, match="PCam files, which need no conversion: use it as it is"):
        convert(root, tmp_path / "out")
    add_meta(root, lambda split, i: f"camelyon16_{split}_{i // 10:03}")
    made = convert(root, tmp_path / "out")
    assert made["layout"] == "PCam" and made["groups"] == 13 + 4 + 4 and made["split"] == "given"
    assert made["fingerprint"] == data.fingerprint(pcam)
    for split in data.SPLITS:
        np.testing.assert_array_equal(data.load(tmp_path / "out", split).images, data.load(pcam, split).images)
        assert list(data.groups(tmp_path / "out", split)) == [
            f"camelyon16_{split}_{i // 10:03}" for i in range(len(data.labels(pcam, split)))
        ]
    assert [(r["file"], r["tile"]) for r in rows_csv(tmp_path / "out")][3] == (
        "camelyonpatch_level_2_split_train_x.h5",
        "3",
    )


def test_an_excerpt_of_pcam_is_joined_by_its_official_rows(pcam, tmp_path):
    root = copy(pcam, tmp_path / "pcam")
    rows = {split: 3 * np.arange(len(data.labels(root, split)))[::-1] + 5 for split in data.SPLITS}
    add_meta(root, lambda split, i: f"{split}-{i}", rows)
    with pytest.raises(StudyError, match="has 387 lines, the train split has 128 patches: they do not match"):
        convert(root, tmp_path / "out")
    for split in data.SPLITS:
        with h5py.File(data.file(root, split, "y"), "a") as f:
            f["pcam_index"] = rows[split]
    convert(root, tmp_path / "out")
    assert list(data.groups(tmp_path / "out", "test")) == [f"test-{i}" for i in rows["test"]]
    with h5py.File(data.file(root, "test", "y"), "a") as f:
        f["pcam_index"][...] = rows["test"] - 1
    with pytest.raises(StudyError, match="center_tumor_patch differs from the labels in .* of 32 rows"):
        convert(root, tmp_path / "two")
    with h5py.File(data.file(root, "test", "y"), "a") as f:
        del f["pcam_index"]
        f["pcam_index"] = rows["test"][:5]
    with pytest.raises(StudyError, match="'pcam_index' must hold 32 row numbers"):
        convert(root, tmp_path / "two")
