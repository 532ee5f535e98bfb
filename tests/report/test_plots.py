"""Figures hold what they are given: pictures, bars, lines, words; and leave nothing behind."""

from __future__ import annotations

import io
from itertools import combinations

import numpy as np
import pytest
from made_up import not_run, write_run
from matplotlib._pylab_helpers import Gcf
from matplotlib.colors import to_hex, to_rgb
from PIL import Image

from pcamlib.core import paper
from pcamlib.models import generators
from pcamlib.report import patch_plots, plots, result_plots
from pcamlib.results import frame, load


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path / "phantom-demo")


@pytest.fixture(autouse=True)
def no_global_figures():
    yield
    assert not Gcf.figs


def patches(n: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (n, 96, 96, 3), dtype=np.uint8)


def texts(figure) -> str:
    return "\n".join(t.get_text() for t in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def bars(axes) -> list:
    """The bars of a panel; bands and the panel's own background are patches too, but not in a container."""
    return [bar for container in axes.containers if hasattr(container, "patches") for bar in container.patches]


def lines(axes, colour: str) -> list[float]:
    """Heights of horizontal lines of a colour."""
    return [
        line.get_ydata()[0]
        for line in axes.lines
        if to_hex(line.get_color()).lower() == colour.lower() and len(set(line.get_ydata())) == 1
    ]


def pixels(figure) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(plots.show(figure).data)).convert("RGB"))


def test_show_gives_a_white_png_wide_enough_for_a_page():
    picture = pixels(patch_plots.patch_grid(patches(3), note="A footnote."))
    assert picture.shape[1] == 780
    assert (picture[0] == 255).all() and (picture[:, 0] == 255).all()


def test_patch_grid_shows_every_patch_once_with_its_class():
    images = patches(8)
    figure = patch_plots.patch_grid(images, labels=[0, 1] * 4, columns=3, title="Title", note="Where from.")
    shown = [axes.images[0].get_array() for axes in figure.axes if axes.images]
    assert len(figure.axes) == 9 and len(shown) == 8
    assert all((a == b).all() for a, b in zip(shown, images, strict=True))
    assert [axes.get_xlabel() for axes in figure.axes[:2]] == ["no tumour", "tumour"]
    assert "Where from." in texts(figure) and "Title" in texts(figure)


@pytest.mark.parametrize("images", [patches(2)[0], patches(2).astype(float), patches(0), patches(2)[..., :1]])
def test_patches_of_another_form_are_refused(images):
    with pytest.raises(ValueError, match=r"uint8 \(N, H, W, 3\)"):
        patch_plots.patch_grid(images)


def test_forward_noise_labels_the_steps():
    one = patch_plots.forward_noise(patches(4), [0, 100, 500, 999])
    assert [axes.get_xlabel() for axes in one.axes] == ["t = 0", "t = 100", "t = 500", "t = 999"]
    two = patch_plots.forward_noise(np.stack([patches(4), patches(4, 1)]), [0, 100, 500, 999])
    assert len(two.axes) == 8
    with pytest.raises(ValueError):
        patch_plots.forward_noise(patches(4), [0, 100])


def test_reconstructions_are_below_their_originals():
    real, recon = patches(3), patches(3, 1)
    figure = patch_plots.reconstructions(real, recon)
    shown = [axes.images[0].get_array() for axes in figure.axes]
    assert (shown[1] == real[1]).all() and (shown[3 + 1] == recon[1]).all()
    assert "reconstructed" in texts(figure)


def test_lines_of_patches_have_their_names():
    figure = patch_plots.lines({"real": patches(3), "U-Net": patches(2, 1)})
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["real", "", "", "U-Net", "", ""]
    assert sum(bool(axes.images) for axes in figure.axes) == 5
    with pytest.raises(ValueError, match="real"):
        patch_plots.lines({"real": patches(3) / 255})


def test_accepted_rejected():
    figure = patch_plots.accepted_rejected(patches(3), patches(2), ([1.5, 1.25, 1.0], [0.5, 0.25]))
    assert sum(bool(axes.images) for axes in figure.axes) == 5
    assert [axes.get_xlabel() for axes in figure.axes[:3]] == ["1.50", "1.25", "1.00"]
    assert "0.25" in texts(figure)
    assert "nothing was dropped" in texts(patch_plots.accepted_rejected(patches(3), patches(0)))
    with pytest.raises(ValueError, match="at least one patch"):
        patch_plots.accepted_rejected(patches(0), patches(0))


def test_figure_3_marks_what_was_not_run():
    images = {g: {s: {c: patches(2) for c in (0, 1)} for s in paper.SELECTIONS} for g in paper.GENERATORS}
    images["flow"] = images.pop("dit")
    images["flow"]["realism"][1] = patches(1)
    del images["histogan"]["class"]
    figure = patch_plots.samples_figure_3(images)
    assert len(figure.axes) == 3 * 2 * 6
    assert [axes.get_ylabel() for axes in figure.axes[::12]] == ["HistoGAN", "U-Net", "Rectified flow"]
    assert sum(bool(axes.images) for axes in figure.axes) == 36 - 4 - 1
    assert texts(figure).count("not run") == 5
    assert [axes.get_title(loc="left") for axes in figure.axes[:6]] == [
        "none\nno tumour", "\ntumour", "realism\nno tumour", "\ntumour", "class-based\nno tumour", "\ntumour"
    ]  # fmt: skip


def test_loss_curves_draw_what_was_logged():
    log = [{"epoch": e, "step": 9 * e, "images": 99, "loss": 1 / e, "kl": e, "seconds": 1.0} for e in (1, 2, 3)]
    figure = plots.loss_curves(log)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Training loss", "Kullback-Leibler divergence"]
    assert list(figure.axes[0].lines[0].get_xdata()) == [1, 2, 3]
    assert list(figure.axes[0].lines[0].get_ydata()) == [1, 1 / 2, 1 / 3]
    assert list(plots.loss_curves(log, ["kl"], x="step").axes[0].lines[0].get_xdata()) == [9, 18, 27]
    with pytest.raises(ValueError, match="at least one row"):
        plots.loss_curves([])


def test_label_balance_counts():
    figure = plots.label_balance({"train": np.array([0] * 1500 + [1] * 500), "test": np.zeros(7, np.uint8)})
    assert "1,500" in texts(figure) and "500" in texts(figure) and "7" in texts(figure)
    assert [bar.get_width() for bar in bars(figure.axes[0])] == [0.75, 0.25, 1, 0]


def test_noise_schedules_say_where_noise_exceeds_signal():
    figure = plots.noise_schedules({"slow": np.array([0.9, 0.8, 0.6, 0.4]), "fast": np.array([0.6, 0.4])}, note="n")
    slow, fast = figure.axes[0].lines[:2]
    np.testing.assert_allclose(slow.get_xdata(), [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(fast.get_ydata(), [0.6, 0.4])
    assert "slow" in texts(figure) and "n" in texts(figure)


def test_roc_marks_the_thresholds():
    labels, scores = np.array([0, 0, 1, 1]), np.array([0.1, 0.6, 0.5, 0.9])
    figure = plots.roc(labels, scores, [0.5, 0.7], note="n")
    curve, _, *marks = figure.axes[0].lines
    assert set(zip(curve.get_xdata(), curve.get_ydata())) == {(0, 0), (0, 0.5), (0.5, 0.5), (0.5, 1), (1, 1)}
    assert [(m.get_xdata()[0], m.get_ydata()[0]) for m in marks] == [(0.5, 1), (0, 0.5)], "at or above"
    assert "threshold 0.500" in texts(figure)


def test_realism_histogram_counts_every_score_and_says_the_share():
    scores = {"realism": [[0.5, 0.9, 1.0], [1e6]], "class": [[0.2, 0.3], [0.4, 1.5]]}
    figure = plots.realism_histogram(scores, threshold=1)
    for axes, counts in zip(figure.axes, ([3, 1], [2, 2]), strict=True):
        by_class = [np.asarray(line.get_xy())[:, 1] for line in axes.patches]
        # the outline of a histogram passes each bin's height twice
        assert [round(y[:-1].sum() / 2) for y in by_class] == counts
        assert 1 in axes.lines[0].get_xdata()
    legends = [text.get_text() for axes in figure.axes for text in axes.get_legend().get_texts()]
    assert legends == [
        "no tumour: 33.3% at or above 1",
        "tumour: 100.0% at or above 1",
        "no tumour: 0.0% at or above 1",
        "tumour: 50.0% at or above 1",
    ]
    with pytest.raises(ValueError, match="at least one score of each class"):
        plots.realism_histogram({"realism": [[0.5], []]})


def test_nearest_pairs_stand_above_each_other_with_their_ratio():
    figure = patch_plots.nearest_pairs({"unet": (patches(3), patches(3), [0.5, 0.75, 1.25])})
    assert [len(axes.images) for axes in figure.axes] == [1] * 6
    assert "U-Net: samples" in texts(figure) and "0.50" in texts(figure) and "1.25" in texts(figure)


def test_figure_4(run):
    df = load(run, 2)
    figure = result_plots.quality_figure_4(df, "judge-b")
    assert [len(bars(axes)) for axes in figure.axes] == [9, 9, 9]
    heights = [bar.get_height() for bar in bars(figure.axes[0])]
    assert heights == pytest.approx([1005, 1055, 1065, 505, 555, 565, 405, 455, 465])
    assert {bar.get_height() for bar in bars(figure.axes[2])} == {25}
    assert lines(figure.axes[0], plots.GREY) == [25] and 105 in lines(figure.axes[0], plots.INK)
    for i, generator in enumerate(paper.GENERATORS):
        colours = {to_hex(bar.get_facecolor()).upper() for bar in bars(figure.axes[0])[3 * i : 3 * i + 3]}
        assert colours == {plots.COLOURS[generator]}


def test_figure_5(run):
    figure = result_plots.auc_figure_5(load(run, 2))
    assert len(figure.axes) == 3
    for axes, generator in zip(figure.axes, paper.GENERATORS, strict=True):
        assert len(bars(axes)) == 6
        assert lines(axes, "#009E73") == pytest.approx([80.5])  # baseline, green
        assert lines(axes, "#0072B2") == pytest.approx([85.5])  # traditional, blue
        assert {to_hex(bar.get_edgecolor()).upper() for bar in bars(axes)} == {plots.COLOURS[generator]}
        assert axes.get_title(loc="left") == paper.GENERATOR_NAMES[generator]
        low, high = axes.get_ylim()
        assert low < 80 and high > 88
    augmentation, transfer = bars(figure.axes[1])[:3], bars(figure.axes[1])[3:]
    assert [bar.get_height() for bar in augmentation] == pytest.approx([85.5, 85.9, 85.7])
    assert [bar.get_height() for bar in transfer] == pytest.approx([87.5, 87.9, 87.7])
    assert all(bar.get_hatch() for bar in transfer) and not any(bar.get_hatch() for bar in augmentation)


def test_figure_6_with_an_arm_not_run(run):
    for subset in (0, 1):
        not_run(
            run / f"subset-{subset}/results/classification-histogan.json",
            regime="synthetic",
            selection="class",
        )
    figure = result_plots.auc_figure_6(load(run, 2), note="Where from.")
    assert len(bars(figure.axes[0])) == 8
    assert texts(figure).count("not run") == 1
    assert lines(figure.axes[0], "#009E73") == pytest.approx([80.5])
    assert "Where from." in texts(figure)


def test_one_subset_has_no_whiskers_and_no_band(tmp_path):
    df = load(write_run(tmp_path / "run", 1), 1)
    axes = result_plots.auc_figure_6(df).axes[0]
    assert len(bars(axes)) == 9 and not axes.collections
    assert len(axes.patches) == 9  # no band beside the bars


def test_nothing_run_still_draws_and_says_so(run):
    df = load(run, 2).query("kind == 'selection'")
    for figure in (result_plots.auc_figure_5(df), result_plots.quality_figure_4(df, "judge-a")):
        assert not any(bars(axes) for axes in figure.axes)
        assert "not run" in texts(figure)
        assert pixels(figure).size


def test_the_forest_plot_has_every_arm_with_its_interval(tmp_path):
    root = write_run(tmp_path / "run", 3)
    for subset in range(3):
        not_run(root / f"subset-{subset}/results/classification-dit.json", regime="synthetic", selection="none")
    df = load(root, 3)
    varied = (df["metric"] == "auc") & (df["arm"] != "traditional")
    df.loc[varied, "value"] += 0.001 * df["subset"]  # equal differences would have no interval
    figure = result_plots.forest(df, note="Where from.")
    upper, lower = figure.axes
    assert len(upper.get_yticks()) == 31 - 9 + 4 and len(lower.get_yticks()) == 9
    probed = result_plots.forest(frame.by_device(df, "probe")).axes[0]
    assert len(probed.get_yticks()) == 31 - 9 + 2, "with pseudo-labels and without stronger augmentation"
    assert texts(figure).count("not run") == 1 and "Where from." in texts(figure)
    marks = {line.get_ydata()[0]: line for line in upper.lines if line.get_marker() in ("D", "s")}
    names = [label.get_text() for label in upper.get_yticklabels()]
    unet = marks[names.index("U-Net transfer (realism)")]
    assert unet.get_xdata()[0] == pytest.approx(2.5) and to_hex(unet.get_color()).upper() == plots.COLOURS["unet"]
    assert sum(line.get_linewidth() == 2 and line.get_marker() == "None" for line in upper.lines) == 26
    drawn = {
        "regime": "transfer",
        "generator": "unet",
        "selection": "realism",
        "traditional": {"low": -0.5, "high": 0.5},
    }
    others = {"traditional": None, "regime": "baseline", "generator": None, "selection": None}
    upper = result_plots.forest(df, {"rows": [drawn, others]}).axes[0]
    assert any(list(line.get_xdata()) == [-50, 50] for line in upper.lines), (
        "the interval with patches where there is one"
    )


# Machado, Oliveira & Fernandes (2009), severity 1, on linear RGB
DEFICIENCIES = {
    "none": [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}


@pytest.mark.parametrize("name", DEFICIENCIES)
def test_colours_are_told_apart_by_the_colour_blind(name):
    """CIE76 distances of at least 15 between any two; about 2.3 is what can just be noticed."""

    def lab(colour):
        rgb = np.array(to_rgb(colour))
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(np.array(DEFICIENCIES[name]) @ linear, 0, 1)
        xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]) @ seen
        f = xyz / [0.9505, 1, 1.089]
        f = np.where(f > 0.008856, np.cbrt(f), 7.787 * f + 16 / 116)
        return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])

    pairs = combinations([*plots.COLOURS.values(), *generators.SPARE_COLOURS], 2)
    assert min(float(np.linalg.norm(lab(a) - lab(b))) for a, b in pairs) >= 15


def test_guidance_scales_have_a_line_each():
    figure = patch_plots.guidance_scales({1: patches(3), 1.5: patches(3, 1)}, note="provenance")
    assert len(figure.axes) == 6 and "guidance 1\n" in texts(figure) and "guidance 1.5" in texts(figure)


def takeaways():
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (6, 96, 96, 3)).astype(np.uint8)
    dark = np.full_like(patches, 50)
    log = [{"epoch": 1, "l1": 0.2}, {"epoch": 9, "l1": 0.05}]
    yield (
        patch_plots.patch_grid(np.concatenate([dark, patches // 2 + 128]), [0] * 6 + [1] * 6),
        "50 over the 6 labelled “no tumour”",
        "over the 6 labelled “tumour”",
    )
    yield patch_plots.reconstructions(dark, dark + 7), "differs", " 7.0 of 255"
    yield (
        patch_plots.lines({"real": np.concatenate([dark, dark + 20]), "GAN": dark}),
        "Standard deviation",
        "real 10, GAN 0",
    )
    yield plots.loss_curves(log), "Mean absolute error falls from 0.2 to 0.05", "epoch 1 and 9"
    yield plots.loss_curves(log[::-1], ["l1"]), "rises", "0.05 to 0.2"
    yield plots.label_balance({"train": [0, 1, 1, 1]}), "75.0 % in train", "tumour"
    yield plots.realism_histogram({"realism": [[0.5, 1.5], [2.0, 0.1]]}), "50.0 % by realism", "1"
    yield (
        patch_plots.accepted_rejected(patches[:2], patches[2:], ([1.0, 2.0], [0.5] * 3 + [9e9])),
        "1.50 of the kept",
        "0.50 of",
    )
    yield patch_plots.nearest_pairs({"dit": (patches, patches, [0.9, 0.4, 0.7, 0.8, 1, 1])}), "0.40 (DiT)", "copy"
    yield (
        patch_plots.forward_noise(np.stack([patches[0], patches[0], 255 - patches[0]]), [0, 5, 9]),
        "The picture at t = 9 has a correlation of −1.00",
        "at t = 0.",
    )
    yield (
        patch_plots.forward_noise(np.stack([255 - patches[0], patches[0]]), [98, 0]),
        "The picture at t = 98 has a correlation of −1.00",
        "at t = 0.",
    )
    yield patch_plots.guidance_scales({1: dark, 3: patches}), "0 at 1, 65 at 3", "of a line"
    yield plots.noise_schedules({"one": np.array([0.6, 0.4])}), "exceeds signal after 100 % of the steps", "one"
    yield plots.roc([0, 0, 1, 1], [0.1, 0.6, 0.5, 0.9], [0.5]), "below the curve is 75.0 %", "specificity 50.0 %"


@pytest.mark.parametrize("figure, part, number", takeaways())
def test_a_figure_says_in_one_sentence_what_its_numbers_say(figure, part, number, capsys):
    sentence = figure.get_label()
    assert part in sentence and number in sentence and sentence.endswith(".")
    assert sentence.split("“")[0] in plots.takeaway(figure).data
    plots.show(figure)
    assert "HTML" in capsys.readouterr().out, "it is displayed above the picture"
