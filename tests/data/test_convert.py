"""Own patches: what comes in comes out pixel by pixel, splits respect groups, and what is not clear is asked for."""

import csv
import io
import os
import re
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pcamlib import cli, data
from pcamlib.core.errors import StudyError
from pcamlib.core.files import project_root, read_json
from pcamlib.data import assignment, card, convert

NAMES = np.random.default_rng(1).permutation(192)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, **options)


def write_csv(path, header, rows):
    with open(path, "w", newline="") as f:
        csv.writer(f).writerows([header, *rows])
    return path


@pytest.fixture(scope="module")
def shuffled(tmp_path_factory, pcam):
    """The tiny PCam files as PNG with shuffled names and a CSV in PCam's order, as another team would hand them
    over."""
    root = tmp_path_factory.mktemp("png")
    rows = []
    for split in data.SPLITS:
        for image, label in data.Patches(pcam, split):
            name = f"{NAMES[len(rows)] % 7}/{NAMES[len(rows)]:04d}.png"
            save(root / name, image)
            rows.append([name, label, split])
    write_csv(root / "labels.csv", ["file", "label", "split"], rows)
    return root


def test_pngs_with_shuffled_names_become_the_same_files(shuffled, pcam, tmp_path):
    dest = tmp_path / "mine"
    made = convert.convert(shuffled, dest)
    for split in data.SPLITS:
        a, b = data.load(dest, split), data.load(pcam, split)
        np.testing.assert_array_equal(a.images, b.images)
        np.testing.assert_array_equal(a.labels, b.labels)
        # bit by bit: the study cannot tell the two apart
        for kind in "xy":
            assert data.file(dest, split, kind).read_bytes() == data.file(pcam, split, kind).read_bytes()
    assert data.fingerprint(dest) == data.fingerprint(pcam) == made["fingerprint"]
    kept = read_json(dest / "card.json")
    assert kept["name"] == "mine" and kept["split"] == "given" and kept["images"] == 192 and kept["converted"] == {}
    assert kept["report"]["train"]["patches"] == 128 and kept["report"]["across"]["train-test"] == 0
    assert kept["sha256"]["camelyonpatch_level_2_split_test_x.h5"] == card.sha256(data.file(dest, "test", "x"))
    assert "not checked" in kept["notes"][0] and "| train | 128 |" in (dest / "card.md").read_text()
    rows = list(csv.DictReader(open(dest / "rows.csv")))
    assert [r["file"] for r in rows] == [r["file"] for r in csv.DictReader(open(shuffled / "labels.csv"))]


REAL = project_root().parent / "shared" / "pcam" / "valid.jpeg.h5"


@pytest.mark.skipif(not REAL.exists(), reason="needs the excerpt of real PCam beside the project")
def test_real_patches_as_jpeg_and_png(tmp_path):
    with h5py.File(REAL) as f:
        blob, offset, labels = f["jpeg"][: f["offset"][300]], f["offset"][:301], f["y"][:300].ravel()
    packed = [blob[a:b].tobytes() for a, b in zip(offset[:-1], offset[1:])]
    expected = np.stack([np.asarray(Image.open(io.BytesIO(p)).convert("RGB")) for p in packed])
    names = np.random.default_rng(2).permutation(300)
    rows = []
    for i, name in enumerate(names):
        (tmp_path / "in").mkdir(exist_ok=True)
        if i % 2:
            save(tmp_path / "in" / f"{name}.png", expected[i])
        else:
            (tmp_path / "in" / f"{name}.jpg").write_bytes(packed[i])
        rows.append([f"{name}.{'png' if i % 2 else 'jpg'}", labels[i], data.SPLITS[i // 100]])
    convert.convert(write_csv(tmp_path / "in" / "list.csv", ["file", "label", "split"], rows), tmp_path / "out")
    for s, split in enumerate(data.SPLITS):
        found = data.load(tmp_path / "out", split)
        np.testing.assert_array_equal(found.images, expected[s * 100 : (s + 1) * 100])
        np.testing.assert_array_equal(found.labels, labels[s * 100 : (s + 1) * 100])


def test_folders_of_classes_are_split_by_seed_with_both_balances(tmp_path, patches):
    for i, (image, label) in enumerate(zip(*patches)):
        save(tmp_path / "in" / ("adenoma" if label else "normal") / f"{i}.png", image)
    (tmp_path / "in" / "normal" / "notes.txt").write_text("x")
    with pytest.raises(StudyError, match="2 classes .adenoma, normal.*--positive NAME"):
        convert.convert(tmp_path / "in", tmp_path / "out")
    heard = []
    made = convert.convert(tmp_path / "in", tmp_path / "out", positive="adenoma", warn=heard.append)
    counts = {s: (made["report"][s]["patches"], made["report"][s]["tumour"]) for s in data.SPLITS}
    assert counts == {"train": (154, 77), "valid": (20, 10), "test": (18, 9)}
    assert data.classes(tmp_path / "out") == ("normal", "adenoma")
    assert any("left out: 1" in note for note in heard) and any("add a column 'group'" in note for note in heard)
    again = convert.convert(tmp_path / "in", tmp_path / "again", positive="adenoma")
    other = convert.convert(tmp_path / "in", tmp_path / "other", positive="adenoma", seed=1)
    assert again["fingerprint"] == made["fingerprint"] != other["fingerprint"]


def test_folders_that_name_splits(tmp_path, patches):
    for split, n in {"train": 8, "val": 4, "test": 4}.items():
        for i in range(n):
            save(tmp_path / "in" / split / str(patches.labels[i]) / f"{i}.png", patches.images[i])
    made = convert.convert(tmp_path / "in", tmp_path / "out")
    assert [made["report"][s]["patches"] for s in data.SPLITS] == [8, 4, 4]
    assert made["report"]["across"] == {"train-valid": 4, "train-test": 4, "valid-test": 4}
    assert any("4 images are in both train and valid" in note for note in made["notes"])


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.integers(0, 1), st.integers(1, 9)), min_size=1, max_size=80),
    st.tuples(*[st.integers(1, 9)] * 3),
    st.integers(0, 9),
)
def test_no_group_is_ever_in_two_splits(images, shares, seed):
    groups, labels, weights = map(np.array, zip(*images))
    fractions = [s / sum(shares) for s in shares]
    place = assignment.assign_splits(groups, labels, weights, fractions, seed)
    assert all(len(set(place[groups == g])) == 1 for g in set(groups))
    np.testing.assert_array_equal(place, assignment.assign_splits(groups, labels, weights, fractions, seed))


def test_single_images_are_dealt_to_the_nearest_count():
    labels = np.tile([0, 0, 0, 1], 500)
    place = assignment.assign_splits(np.arange(2000), labels, np.ones(2000), (0.7, 0.1, 0.2), 0)
    for s, n in enumerate((1400, 200, 400)):
        assert (place == s).sum() == n and labels[place == s].sum() == n // 4
    assert len(set(place[:40])) == 3  # shuffled, not cut


def test_three_patients_go_one_to_each_split():
    place = assignment.assign_splits(
        ["a"] * 10 + ["b"] * 10 + ["c"] * 4, np.tile([0, 1], 12), np.ones(24), (0.8, 0.1, 0.1), 0
    )
    assert sorted(set(place[:20])) == [0, 1] or sorted(set(place[:20])) == [0, 2]
    assert set(place) == {0, 1, 2}


def grouped(tmp_path, patches, header=("file", "label", "group"), group=lambda i: f"slide {i // 8}", split=None):
    rows = []
    for i in range(48):
        save(tmp_path / "in" / f"{i}.png", patches.images[i])
        rows.append([f"{i}.png", patches.labels[i], group(i), *([split(i)] if split else [])])
    return write_csv(tmp_path / "in" / "my.csv", [*header, *(["split"] if split else [])], rows)


def test_groups_stay_together_and_a_given_split_may_not_tear_them(tmp_path, patches):
    made = convert.convert(grouped(tmp_path, patches), tmp_path / "out", fractions=(0.5, 0.25, 0.25))
    assert made["groups"] == 6 and made["split"].startswith("drawn by group")
    rows = list(csv.DictReader(open(tmp_path / "out" / "rows.csv")))
    assert all(len({r["split"] for r in rows if r["group"] == g}) == 1 for g in {r["group"] for r in rows})
    assert not any("no groups" in note for note in made["notes"])
    torn = grouped(tmp_path, patches, split=lambda i: data.SPLITS[i % 3])
    with pytest.raises(StudyError, match="group 'slide 0' is in two splits .0.png: train, 1.png: valid"):
        convert.convert(torn, tmp_path / "torn")
    with pytest.raises(StudyError, match="--fractions nan 0.5 0.5: give three shares"):
        convert.convert(grouped(tmp_path, patches), tmp_path / "torn", fractions=(float("nan"), 0.5, 0.5))
    with pytest.raises(StudyError, match="split would hold 0 patches.*too few images or groups"):
        convert.convert(grouped(tmp_path, patches, group=lambda i: i // 24), tmp_path / "torn")
    assert not (tmp_path / "torn").exists()


def test_one_class_against_the_rest(tmp_path, patches):
    rows = [[f"{i}.png", "abc"[i % 3], data.SPLITS[i % 4 % 3]] for i in range(48)]
    for i in range(48):
        save(tmp_path / "in" / f"{i}.png", patches.images[i])
    write_csv(tmp_path / "in" / "x.csv", ["file", "label", "split"], rows)
    with pytest.raises(StudyError, match="3 classes .a, b, c.*one class against all others with --positive"):
        convert.convert(tmp_path / "in", tmp_path / "out")
    with pytest.raises(StudyError, match="'d' is no label"):
        convert.convert(tmp_path / "in", tmp_path / "out", positive="d")
    made = convert.convert(tmp_path / "in", tmp_path / "out", positive="b")
    assert made["classes"] == ["not b", "b"]
    expected = [label == "b" for _, label, split in rows if split == "train"]
    np.testing.assert_array_equal(data.labels(tmp_path / "out", "train"), expected)


def test_tiles_of_an_image_stay_together(tmp_path, patches):
    for i in range(24):
        save(tmp_path / "in" / str(i % 2) / f"{i}.tif", np.tile(patches.images[i], (1, 2, 1)))
    made = convert.convert(tmp_path / "in", tmp_path / "out", size="tile", fractions=(0.5, 0.25, 0.25))
    assert sum(made["report"][s]["patches"] for s in data.SPLITS) == 48 and made["resized_or_cut"] == 24
    assert made["report"]["across"] == {"train-valid": 0, "train-test": 0, "valid-test": 0}
    assert any("each tile has its image's label" in note for note in made["notes"])


CELLS = [["a.png", "0"], ["b.png", "1"]]


@pytest.mark.parametrize(
    "header, rows, message",
    [
        (["name", "label"], CELLS, "has no column 'file' .it has: name, label"),
        (["file", "label", "label"], [["a", "0", "1"]], "names a column twice"),
        (["file", "label"], [["a.png"]], "line 2: it has another number of cells"),
        (["file", "label"], [["a.png", "0", "1"]], "line 2: it has another number of cells"),
        (["file", "label", "split"], [["a.png", "0", "fold 3"]], "split is 'fold 3', it must be train"),
        (["file", "label", "group"], [["a.png", "0", ""]], "'group' is empty"),
        (["file", "label"], [*CELLS, ["./a.png", "1"]], "line 4: file './a.png' is listed in line 2 too"),
        (["file", "label"], [["../a.png", "0"]], "must be a path inside"),
        (["file", "label"], [["/etc/a.png", "0"]], "must be a path inside"),
        (["file", "label"], [], "lists no image"),
        (["file", "label"], [["a.png", "1"]], "every label is '1'"),
        (["file", "label"], CELLS, "a.png is missing.*2 of 2 images are refused"),
    ],
)
def test_a_list_that_is_wrong_gets_one_sentence_and_leaves_nothing(tmp_path, capsys, header, rows, message):
    (tmp_path / "in").mkdir()
    write_csv(tmp_path / "in" / "x.csv", header, rows)
    with pytest.raises(StudyError, match=message) as caught:
        convert.convert(tmp_path / "in", tmp_path / "out")
    assert "\n" not in str(caught.value)
    assert cli.main(["data", "convert", str(tmp_path / "in"), str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("error: ")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_place_by_a_winding_way_costs_nothing(tmp_path, patches, monkeypatch):
    """`new/..` names the current folder: what is in it must stay."""
    for i in range(24):
        save(tmp_path / "here" / "in" / str(i % 2) / f"{i}.png", patches.images[i])
    monkeypatch.chdir(tmp_path / "here")
    for dest in ("new/..", ".", ".."):
        with pytest.raises(StudyError, match="exists: choose another folder"):
            convert.convert(Path("in"), Path(dest), fractions=(0.5, 0.25, 0.25))
    for where in ("x" * 300, "a\0b", b"caf\xe9".decode(errors="surrogateescape")):
        with pytest.raises(StudyError, match="is no path"):
            convert.convert(Path("in"), Path(where))
        with pytest.raises(StudyError, match="is no path"):
            convert.convert(Path(where), Path("out"))
    assert len(list((tmp_path / "here").rglob("*.png"))) == 24
    (tmp_path / "empty").mkdir()
    made = convert.convert(Path("in"), tmp_path / "empty", fractions=(0.5, 0.25, 0.25))
    assert made["images"] == 24 and (tmp_path / "empty" / "card.md").exists(), "an empty folder may be filled"


def test_images_outside_the_classes_are_named_and_names_that_no_text_can_hold_refused(tmp_path, patches):
    for i in range(24):
        save(tmp_path / "in" / str(i % 2) / f"{i}.png", patches.images[i])
    save(tmp_path / "in" / "stray.png", patches.images[0])
    notes = []
    convert.convert(tmp_path / "in", tmp_path / "out", fractions=(0.5, 0.25, 0.25), warn=notes.append)
    assert "images outside a folder of a class, left out: 1 (the first: stray.png)" in notes
    for i in range(24):
        save(tmp_path / "split" / ("train", "val", "test")[i % 3] / str(i % 2) / f"{i}.png", patches.images[i])
    save(tmp_path / "split" / "val" / "stray.png", patches.images[0])
    convert.convert(tmp_path / "split", tmp_path / "out2", warn=notes.append)
    assert "images outside a folder of a class, left out: 1 (the first: val/stray.png)" in notes
    name = os.fsencode(tmp_path / "in" / "0") + b"/caf\xe9.png"
    with open(name, "wb") as f:
        f.write((tmp_path / "in" / "stray.png").read_bytes())
    with pytest.raises(StudyError, match="is no path .not UTF-8.: give another, or rename it"):
        convert.convert(tmp_path / "in", tmp_path / "out3", fractions=(0.5, 0.25, 0.25))
    assert not (tmp_path / "out3").exists()


def test_damaged_images_and_full_folders(tmp_path, shuffled, patches, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(StudyError, match="full exists"):
        convert.convert(shuffled, tmp_path / "full")
    with pytest.raises(StudyError, match="does not exist"):
        convert.convert(tmp_path / "none", tmp_path / "out")
    for i in range(24):
        save(tmp_path / "in" / str(i % 2) / f"{i}.png", patches.images[i])
    whole = (tmp_path / "in" / "1" / "23.png").read_bytes()
    (tmp_path / "in" / "1" / "23.png").write_bytes(whole[:3000])  # header whole, pixels cut
    options = {"fractions": (0.5, 0.25, 0.25)}
    with pytest.raises(StudyError, match="23.png cannot be read as PNG"):
        convert.convert(tmp_path / "in", tmp_path / "out", **options)
    (tmp_path / "in" / "1" / "23.png").write_bytes(whole)
    monkeypatch.setattr(convert.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(StudyError, match="needs [0-9]+ MB, 0 MB are free there: make room"):
        convert.convert(tmp_path / "in", tmp_path / "out", **options)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "in"]


def test_camera_bits_that_would_come_out_dark_are_refused(tmp_path, patches):
    """Cameras store 10, 12 or 14 bits in 16-bit files; the high byte of those is nearly black."""
    for bits, taken in ((10, False), (12, False), (14, False), (16, True)):
        for i in range(24):
            grey = patches.images[i][..., 0].astype(np.uint16)  # 8 bits that reach 159 of 255
            save(tmp_path / f"in{bits}" / str(i % 2) / f"{i}.tif", grey << bits - 8)
        options = {"fractions": (0.5, 0.25, 0.25), "colours": ["grey", "16bit"]}
        if taken:
            assert convert.convert(tmp_path / f"in{bits}", tmp_path / "out", **options)["converted"] == {
                "grey": 24,
                "16bit": 24,
            }
        else:
            with pytest.raises(StudyError, match="the 24 16-bit images of .* have no value above .* scale them"):
                convert.convert(tmp_path / f"in{bits}", tmp_path / "out", **options)
            assert not (tmp_path / "out").exists()


def test_blank_patches_are_a_concern_from_a_few_per_cent_on():
    def report(blank):
        r = {"patches": 100, "conflicting": 0, "blank": blank}
        return {"train": r, "valid": r | {"blank": 0}, "across": {"train-valid": 0}}

    assert card.concerns(report(5)) == []
    assert card.concerns(report(6))[0].startswith("6 patches of train (6%) are blank")


def test_turned_images_are_counted(tmp_path, patches):
    tags = Image.Exif()
    tags[0x0112] = 3
    for i in range(24):
        save(tmp_path / "in" / str(i % 2) / f"{i}.png", patches.images[i][::-1, ::-1], exif=tags)
        save(tmp_path / "upright" / str(i % 2) / f"{i}.png", patches.images[i])
    options = {"fractions": (0.5, 0.25, 0.25)}
    made = convert.convert(tmp_path / "in", tmp_path / "out", **options)
    assert made["turned"] == 24 and any("as viewers show them: 24 images" in note for note in made["notes"])
    assert made["fingerprint"] == convert.convert(tmp_path / "upright", tmp_path / "out2", **options)["fingerprint"]


def test_an_image_that_may_not_be_read_is_not_called_damaged(tmp_path, patches, monkeypatch):
    for i in range(24):
        save(tmp_path / "in" / str(i % 2) / f"{i}.png", patches.images[i])
    whole = io.FileIO

    def refuse(path, *rest, **options):
        if str(path).endswith("/3.png"):
            raise PermissionError(13, "Permission denied")
        return whole(path, *rest, **options)

    monkeypatch.setattr(io, "FileIO", refuse)
    with pytest.raises(StudyError, match="1/3.png could not be opened .Permission denied") as caught:
        convert.convert(tmp_path / "in", tmp_path / "out", fractions=(0.5, 0.25, 0.25))
    assert "remove" not in str(caught.value)


def test_a_picture_with_both_labels_is_a_conflict_across_splits_too(tmp_path, patches):
    rows = []
    for i in range(60):
        save(tmp_path / "in" / f"{i}.png", patches.images[i])
        rows.append([f"{i}.png", i % 2, data.SPLITS[min(i // 20, 2)]])
    for i in range(4):  # pictures of train, by a link, with the other label in test
        os.symlink(f"{i}.png", tmp_path / "in" / f"link{i}.png")
        rows.append([f"link{i}.png", 1 - i % 2, "test"])
    made = convert.convert(write_csv(tmp_path / "in" / "l.csv", ["file", "label", "split"], rows), tmp_path / "out")
    conflicts = [note for note in made["notes"] if "carry both labels" in note]
    assert conflicts == [
        f"4 images of {split} carry both labels, in this split or in another" for split in ("train", "test")
    ]


def test_names_cannot_act_as_markup_on_the_card(tmp_path, patches):
    hostile = ["<script>alert(1)</script>", "| a | b", "{include} /etc/passwd", "$x$ `y` ![z](w)"]
    rows = []
    for i in range(24):
        save(tmp_path / "in" / f"{i}.png", patches.images[i])
        rows.append([f"{i}.png", hostile[i % 4], data.SPLITS[i // 8]])
    source = write_csv(tmp_path / "in" / "l.csv", ["file", "label", "split"], rows)
    convert.convert(source, tmp_path / "out", positive=hostile[0], licence="[CC0](javascript:x) <b>")
    text = (tmp_path / "out" / "card.md").read_text()
    assert not re.search(r"(?<!\\)[<{$[]", text), "every such character is escaped"
    assert all(
        line.replace("\\|", "").count("|") == 4 for line in text.splitlines() if line.endswith((" | 6 |", " images |"))
    )


def waiting(source, dest):
    """A process that converts as soon as a line comes."""
    code = (
        "import sys; from pathlib import Path; from pcamlib.data.convert import convert; from pcamlib.core.errors"
        f" import StudyError\nprint('ready', flush=True); sys.stdin.readline()\ntry: convert(Path({str(source)!r}),"
        f" Path({str(dest)!r}))\nexcept StudyError as error: print(error); sys.exit(2)"
    )
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    return subprocess.Popen([sys.executable, "-c", code], text=True, **pipes)


@pytest.mark.slow
def test_of_two_processes_with_one_destination_one_wins_whole(tmp_path, patches):
    prints = []
    for k in range(2):
        for i in range(60):
            split = data.SPLITS[i % 3]
            save(
                tmp_path / f"in{k}" / split / str(i // 3 % 2) / f"{i}.png",
                patches.images[i] if k == 0 else 255 - patches.images[i],
            )
        prints.append(convert.convert(tmp_path / f"in{k}", tmp_path / f"alone{k}")["fingerprint"])
    dest = tmp_path / "out"
    both = [waiting(tmp_path / f"in{k}", dest) for k in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    ends = [(*process.communicate(timeout=100), process.returncode) for process in both]
    winner = [k for k, (*_, code) in enumerate(ends) if code == 0]
    assert len(winner) == 1, ends
    assert data.fingerprint(dest) == prints[winner[0]] == read_json(dest / "card.json")["fingerprint"]
    assert read_json(dest / "card.json")["source"] == f"in{winner[0]}"
    out, _, code = ends[1 - winner[0]]
    assert code == 2 and ("by another process in the meantime" in out or "exists: choose another" in out)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["alone0", "alone1", "in0", "in1", "out"]
