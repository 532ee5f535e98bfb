"""Folders as people have them: links, folders of tools, splits beside or below classes; and labels and groups spelled
in many ways."""

import os

import pytest
from making import card_of, counts, put, rows_csv, write_csv

from pcamlib.core.errors import StudyError
from pcamlib.data.convert import convert

THIRDS = (0.4, 0.3, 0.3)


def class_folders(root, n=12, classes=("normal", "tumour"), inside=""):
    for name in classes:
        for i in range(n):
            put(root / name / inside / f"{i}.png")


def test_images_behind_links_are_read_and_loops_end(tmp_path):
    class_folders(tmp_path / "s", 20, inside="a")
    class_folders(tmp_path / "store", 10)
    for name in ("normal", "tumour"):
        os.symlink(tmp_path / "store" / name, tmp_path / "s" / name / "b")
    os.symlink(tmp_path / "s", tmp_path / "s" / "tumour" / "loop")
    os.symlink(tmp_path / "nowhere", tmp_path / "s" / "tumour" / "broken")
    os.symlink("self", tmp_path / "s" / "tumour" / "self")
    made = convert(tmp_path / "s", tmp_path / "out", positive="tumour")
    assert made["images"] == 60 and sum(n for n, _ in counts(tmp_path / "out").values()) == 60
    assert sum(p for _, p in counts(tmp_path / "out").values()) == 30
    assert any(
        note.startswith("linked folders that lead to a folder read before, left out: 1") for note in made["notes"]
    )


def test_hidden_folders_and_those_of_tools_are_skipped_and_counted(tmp_path):
    class_folders(tmp_path / "s", 30)
    for name in ("normal", "tumour"):
        for i in range(5):
            put(tmp_path / "s" / name / ".ipynb_checkpoints" / f"{i}-checkpoint.png")
            put(tmp_path / "s" / name / "@eaDir" / f"{i}.png" / "SYNOFILE_THUMB_M.jpg")
    put(tmp_path / "s" / "__MACOSX" / "normal" / "._0.png")
    put(tmp_path / "s" / ".cache" / "0.png")
    put(tmp_path / "s" / "normal" / "._0.png")
    made = convert(tmp_path / "s", tmp_path / "out", positive="tumour")
    assert made["images"] == 60
    assert any(
        note.startswith("hidden files and folders of the system or of tools, left out: 7") for note in made["notes"]
    )


@pytest.mark.parametrize(
    "names, beside",
    [
        (("train", "valid", "test"), ["__MACOSX/._0.png"]),
        (("train", "valid", "test"), ["docs/readme.txt", "notes.pdf"]),
        (("Training", "Validation", "Testing"), []),
        (("training", "dev", "evaluation"), []),
        (("dataset/train", "dataset/val", "dataset/test"), []),
    ],
)
def test_split_folders_are_known_beside_others(tmp_path, names, beside):
    for name, n in zip(names, (8, 3, 4)):
        class_folders(tmp_path / "s" / name, n)
    for path in beside:
        (tmp_path / "s" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "s" / path).write_bytes(b"x")
    made = convert(tmp_path / "s", tmp_path / "out", positive="tumour")
    assert counts(tmp_path / "out") == {"train": (16, 8), "valid": (6, 3), "test": (8, 4)} and made["split"] == "given"


def test_one_folder_around_the_classes_is_looked_through(tmp_path):
    class_folders(tmp_path / "s" / "archive" / "dataset")
    made = convert(tmp_path / "s", tmp_path / "out", positive="tumour", fractions=THIRDS)
    assert made["images"] == 24 and made["classes"] == ["normal", "tumour"]
    assert "classes were looked for in the one folder archive/dataset/" in made["notes"]


def test_names_of_splits_are_never_offered_as_classes(tmp_path):
    for split in ("train", "valid", "test"):
        class_folders(tmp_path / "s" / split, 4)
    put(tmp_path / "s" / "docs" / "figure.png")
    for positive in (None, "tumour", "train"):
        with pytest.raises(StudyError, match="test, train, valid look like splits, but docs does not: move away"):
            convert(tmp_path / "s", tmp_path / "out", positive=positive)
    rows = [[f"docs/{i}.png", ("train", "test")[i % 2]] for i in range(8)]
    with pytest.raises(StudyError, match="the label 'test' is the name of a split, not of a class"):
        convert(write_csv(tmp_path / "c" / "l.csv", ["file", "label"], rows), tmp_path / "out", positive="train")
    class_folders(tmp_path / "two" / "val", 4)
    class_folders(tmp_path / "two" / "validation", 4)
    with pytest.raises(StudyError, match="val and validation both stand for the valid split"):
        convert(tmp_path / "two", tmp_path / "out", positive="tumour")


def test_a_split_below_the_classes_is_kept(tmp_path):
    for name in ("normal", "tumour"):
        for i in range(40):
            put(tmp_path / "s" / name / ("train" if i < 30 else "valid" if i < 35 else "test") / f"{i}.png")
    made = convert(tmp_path / "s", tmp_path / "out", positive="tumour")
    assert made["split"] == "given" and counts(tmp_path / "out") == {
        "train": (60, 30),
        "valid": (10, 5),
        "test": (10, 5),
    }
    assert [row["split"] for row in rows_csv(tmp_path / "out")] == [
        row["file"].split("/")[1] for row in rows_csv(tmp_path / "out")
    ]
    put(tmp_path / "s" / "tumour" / "more" / "0.png")
    with pytest.raises(StudyError, match="look like splits, but more does not"):
        convert(tmp_path / "s", tmp_path / "two", positive="tumour")
    (tmp_path / "s" / "tumour" / "more" / "0.png").rename(tmp_path / "s" / "tumour" / "0.png")
    with pytest.raises(StudyError, match="some images of a class are in folders of splits and some are not"):
        convert(tmp_path / "s", tmp_path / "two", positive="tumour")


def test_a_valid_split_is_drawn_from_train_where_only_train_and_test_are_given(tmp_path):
    rows = []
    for i in range(60):
        put(tmp_path / "s" / f"{i}.png")
        rows.append([f"{i}.png", i % 2, "test" if i >= 40 else "train", f"p{i // 4}"])
    source = write_csv(tmp_path / "s" / "l.csv", ["file", "label", "split", "group"], rows)
    made = convert(source, tmp_path / "out", fractions=(0.6, 0.2, 0.2))
    found = rows_csv(tmp_path / "out")
    assert {r["file"] for r in found if r["split"] == "test"} == {f"{i}.png" for i in range(40, 60)}
    assert counts(tmp_path / "out")["valid"] == (8, 4) or counts(tmp_path / "out")["valid"] == (12, 6)
    assert all(len({r["split"] for r in found if r["group"] == g}) == 1 for g in {r["group"] for r in found})
    assert made["split"].startswith("train and test given; valid drawn by group from train, 25% of it")


def listed(root, label, group=None, n=120, split=None):
    rows = []
    for i in range(n):
        put(root / f"{i}.png", seed=i)
        rows.append([f"{i}.png", label(i)] + ([group(i)] if group else []) + ([split(i)] if split else []))
    header = ["file", "label"] + ["group"] * bool(group) + ["split"] * bool(split)
    return write_csv(root / "l.csv", header, rows)


TUMOUR = [
    ("tumour", "Tumour", "TUMOUR"),
    ("m\u00e9tastase", "me\u0301tastase"),
    ("1", "1.0", "01"),
    ("tumour", " tumour", "tumour\u00a0"),
]


@pytest.mark.parametrize("spellings", TUMOUR)
def test_labels_spelled_in_several_ways_are_one_class(tmp_path, spellings):
    source = listed(tmp_path / "s", lambda i: ("0", spellings[i // 2 % len(spellings)])[i % 2])
    made = convert(source, tmp_path / "out", positive=spellings[-1])
    assert sum(p for _, p in counts(tmp_path / "out").values()) == 60
    assert sorted(entry["images"] for entry in made["labels"].values()) == [60, 60]
    if spellings[1].strip() != spellings[0]:
        assert any(note.startswith("labels written in several ways, each taken as one") for note in made["notes"])


def test_what_class_0_is_made_of_is_said(tmp_path):
    source = listed(tmp_path / "s", lambda i: ("stroma", "fat", "tumour")[i % 3])
    made = convert(source, tmp_path / "out", positive="tumour")
    assert "class 0 (not tumour) is made of 2 labels: fat 40, stroma 40" in made["notes"]
    assert card_of(tmp_path / "out")["labels"]["fat"] == {"class": 0, "images": 40}
    assert "| fat | 0 | 40 |" in (tmp_path / "out" / "card.md").read_text()


@pytest.mark.parametrize("word", ["nan", "-1", "None", "N/A", "unlabelled", "-1.0"])
def test_patches_without_a_label_never_become_class_0_unsaid(tmp_path, word):
    source = listed(tmp_path / "s", lambda i: word if i >= 100 else ("normal", "tumour")[i % 2])
    with pytest.raises(StudyError, match="20 images have the label .*reads like 'not labelled': with --leave-out"):
        convert(source, tmp_path / "out", positive="tumour")
    made = convert(source, tmp_path / "out", positive="tumour", leave_out=[word])
    assert made["images"] == 100 and sum(p for _, p in counts(tmp_path / "out").values()) == 50
    assert f"left out because of their label {word!r}: 20 images" in made["notes"]
    with pytest.raises(StudyError, match="--leave-out 'fat' is not a label here"):
        convert(source, tmp_path / "out2", positive="tumour", leave_out=["fat"])
    two = listed(tmp_path / "two", lambda i: (word, "tumour")[i % 2], n=30)
    made = convert(two, tmp_path / "out3", positive="tumour")
    assert any("reads like 'not labelled'; it was taken as class 0" in note for note in made["notes"])


@pytest.mark.parametrize(
    "ways", [("{}", "{}.0"), ("{:03}", "{}"), ("Patient {}", "patient  {}"), ("caf\u00e9{}", "cafe\u0301{}")]
)
def test_a_patient_spelled_in_two_ways_stays_in_one_split(tmp_path, ways):
    source = listed(tmp_path / "s", lambda i: i % 2, lambda i: ways[i % 2].format(i // 2 % 12 + 1))
    made = convert(source, tmp_path / "out", fractions=(0.5, 0.25, 0.25))
    home = {}
    for row in rows_csv(tmp_path / "out"):
        home.setdefault(int(row["file"][:-4]) // 2 % 12, set()).add(row["split"])
    assert made["groups"] == 12 and all(len(splits) == 1 for splits in home.values())
    assert any(note.startswith("groups written in several ways, each taken as one") for note in made["notes"])
    given = listed(
        tmp_path / "t",
        lambda i: i // 2 % 2,
        lambda i: ways[i % 2].format(i // 2 % 12 + 1),
        split=lambda i: ("train", "test")[i % 2],
    )
    with pytest.raises(StudyError, match="group .* .also written .*is in two splits"):
        convert(given, tmp_path / "torn")


def test_invisible_characters_in_labels_groups_and_the_card_are_refused(tmp_path):
    for label, group in (("tumour\u200b", "a"), ("tu\nmour", "a"), ("tumour", "a\nb"), ("tumour", "\x1b]0;x\x07")):
        root = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        source = listed(root, lambda i: ("normal", label)[i % 2], lambda i: group if i == 5 else "b", n=12)
        with pytest.raises(StudyError, match="which cannot be seen: remove it from the name"):
            convert(source, tmp_path / "out", positive=label)
    class_folders(tmp_path / "s")
    with pytest.raises(StudyError, match="--licence .* contains"):
        convert(tmp_path / "s", tmp_path / "out", positive="tumour", licence="CC0\n# heading")
    with pytest.raises(StudyError, match="the folder .* contains"):
        convert(tmp_path / "s", tmp_path / "a\nb", positive="tumour")
    assert not (tmp_path / "out").exists()


def test_columns_suffix_groups_and_a_choice_of_paths_by_option(tmp_path):
    rows = []
    for i in range(48):
        put(tmp_path / "s" / f"{'40X' if i % 4 else '100X'}" / f"case{i // 4}-{i}.tif")
        rows.append([f"{'40X' if i % 4 else '100X'}/case{i // 4}-{i}", i % 2])
    source = write_csv(tmp_path / "s" / "l.csv", ["ID", "Diagnosis"], rows)
    with pytest.raises(StudyError, match="has no column 'file' .*or name another with --file-column NAME"):
        convert(source, tmp_path / "out")
    options = {
        "file_column": "id",
        "label_column": "Diagnosis",
        "suffix": ".tif",
        "group_from": "(case[0-9]+)-",
        "only": "40X/",
    }
    made = convert(source, tmp_path / "out", fractions=THIRDS, **options | {"only": "^40X/"})
    assert made["images"] == 36 and made["groups"] == 12
    assert {
        "images whose path does not fit '^40X/', left out: 12",
        "groups taken from the paths: 12 (the first: case0)",
    } <= set(made["notes"])
    for change, message in (
        (
            {"group_from": "patient([0-9])"},
            "--group-from 'patient.*' finds no group in '40X/case0-1.tif'|finds no group in '100X",
        ),
        ({"group_from": "("}, "is not a regular expression"),
        ({"only": "^none"}, "--only '.none' fits none of 48 images"),
    ):
        with pytest.raises(StudyError, match=message):
            convert(source, tmp_path / "no", **options | change)


def test_a_folder_that_may_not_be_read_is_called_that(tmp_path, monkeypatch):
    class_folders(tmp_path / "s", 2)
    whole = os.scandir

    def refuse(path):
        if str(path).endswith("tumour"):
            raise PermissionError(13, "Permission denied", str(path))
        return whole(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(StudyError, match="tumour cannot be opened .Permission denied"):
        convert(tmp_path / "s", tmp_path / "out", positive="tumour")
