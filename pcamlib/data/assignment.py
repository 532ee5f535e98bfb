"""From the labels and groups as somebody wrote them to what the study needs: classes 0 and 1, splits, subsets of
slides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from pcamlib.core.errors import StudyError
from pcamlib.data import pcam
from pcamlib.data.names import NO_LABEL, check_name, merge_note, name_key, split_name, unify
from pcamlib.data.sources import Row

SHOWN = 8  # names listed in a sentence
DRAWS = 200  # random draws of slides, of which the best balanced one is kept


def leave_out(rows: list[Row], labels: Sequence[str], notes: list[str]) -> list[Row]:
    """The rows without those that carry one of `labels`, counted in `notes`. StudyError for a label that no row has."""
    keys = {name_key(label): label for label in labels}
    found = Counter(name_key(row.label) for row in rows)
    for key, label in keys.items():
        if key not in found:
            raise StudyError(
                f"--leave-out {label!r} is not a label here: labels are {_listed(sorted({r.label for r in rows}))}."
            )
        notes.append(f"left out because of their label {label!r}: {found[key]:,} images")
    return [row for row in rows if name_key(row.label) not in keys]


def binary(
    names: Sequence[str], positive: str | None, notes: list[str] | None = None
) -> tuple[np.ndarray, tuple[str, str], dict[str, dict[str, int]]]:
    """Two classes from the labels of N images.

    Labels that differ only in letter case, blanks, Unicode form or number format are one label. `positive` is class 1;
    with more than two labels, all others are class 0. What was merged is said in `notes`.

    Returns labels uint8 (N,), the names of classes 0 and 1, and for each label {"class": 0 or 1, "images": count}.
    Raises StudyError if there is one label only, if `positive` is not among the labels, or is needed and None, if a
    label holds characters that cannot be seen, and if a label that reads like "not labelled" would become class 0
    beside others.
    """
    notes = [] if notes is None else notes
    for name in dict.fromkeys(names):
        check_name(name, "label")
    merged_names, merged = unify(names)
    if merged:
        notes.append(merge_note("labels", merged))
    counts = Counter(merged_names)
    found = sorted(counts)
    if len(found) < 2:
        raise StudyError(f"every label is {_listed(found)!r}: the study needs two classes.")
    if looks := [name for name in found if split_name(name)]:
        raise StudyError(
            f"the label {looks[0]!r} is the name of a split, not of a class (labels here: {_listed(found)}): give the"
            " folder whose sub-folders are the classes, or train, valid and test with the classes in them, or a CSV."
        )
    keys = {name_key(name): name for name in found}
    unread = [name for name in found if name_key(name) in NO_LABEL]
    if positive is None:
        if set(keys) != {"0", "1"}:
            which = "which one is the positive class (1)" if len(found) == 2 else "one class against all others"
            raise StudyError(
                f"labels are {len(found)} classes ({_listed(found)}), the study has 0 and 1: say {which} with"
                " --positive NAME."
                + (
                    f" Is {unread[0]!r} no label? Leave those images out with --leave-out {unread[0]}."
                    if unread
                    else ""
                )
            )
        one, zero = keys["1"], "0"
        classes = pcam.CLASSES
    else:
        if name_key(positive) not in keys:
            raise StudyError(f"--positive {positive!r} is no label here: it is one of {_listed(found)}.")
        one = keys[name_key(positive)]
        others = [name for name in found if name != one]
        zero = others[0] if len(others) == 1 else f"not {one}"
        classes = (zero, one)
    if blank := [name for name in unread if name != one]:
        count = sum(counts[name] for name in blank)
        sentence = f"{count:,} images have the label {blank[0]!r}, which reads like 'not labelled'"
        if len(found) > 2:
            raise StudyError(
                f"{sentence}: with --leave-out {blank[0]} they are left out; if it is a class of its own, give it"
                " another name."
            )
        notes.append(f"{sentence}; it was taken as class 0")
    used = {name: {"class": int(name == one), "images": counts[name]} for name in found}
    if len(found) > 2:
        parts = ", ".join(f"{name} {entry['images']:,}" for name, entry in used.items() if not entry["class"])
        notes.append(f"class 0 ({classes[0]}) is made of {len(found) - 1} labels: {parts[:300]}")
    return np.array([name == one for name in merged_names], np.uint8), classes, used


def _listed(found: Sequence[str]) -> str:
    return ", ".join(found[:SHOWN]) + (f" and {len(found) - SHOWN} more" if len(found) > SHOWN else "")


def unify_groups(rows: list[Row], notes: list[str]) -> list[Row]:
    """The rows with one spelling for each group, so that 7 and 7.0 are one patient. StudyError for invisible
    characters."""
    for what in ("group", "centre"):
        names = [getattr(row, what) for row in rows]
        if names and names[0] is not None:
            for name in dict.fromkeys(names):
                check_name(name, what)
            names, merged = unify(names)
            if merged:
                notes.append(merge_note(f"{what}s", merged))
            rows = [row._replace(**{what: name}) for row, name in zip(rows, names)]
    return rows


def assign_splits(
    groups: Sequence[Any], labels: np.ndarray, weights: np.ndarray, fractions: Sequence[float], seed: int
) -> np.ndarray:
    """Split number (0, 1, …) of each image, int64 (N,): whole groups, shares and class balance as near as they allow.

    Groups are placed one by one, large ones first and equal ones in an order drawn with `seed`. Each goes to the split
    where it brings the counts of both classes (in patches: `weights`) nearest to `fractions` of the total. The last
    groups that hold a class go to splits that lack it. The same arguments give the same splits.
    """
    _, member = np.unique(np.asarray(groups), return_inverse=True)
    counts = np.stack([np.bincount(member, weights * (labels == c)) for c in (0, 1)], axis=1)
    total = counts.sum(0)
    wanted, have = np.outer(fractions, total), np.zeros((len(fractions), 2))
    order = np.random.Generator(np.random.PCG64(seed)).permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(1), kind="stable")]
    place, left = np.empty(len(counts), np.int64), (counts > 0).sum(0)
    for g in order:
        cost = (((have + counts[g] - wanted) ** 2 - (have - wanted) ** 2) / np.maximum(total, 1) ** 2).sum(1)
        for c in np.flatnonzero(counts[g]):
            lacking = have[:, c] == 0
            if lacking.sum() >= left[c]:
                cost[lacking] -= 1e9
        place[g] = int(cost.argmin())
        have[place[g]] += counts[g]
        left -= counts[g] > 0
    return place[member]


def slide_subsets(
    labels: np.ndarray, groups: np.ndarray, n: int = 5, fraction: float = 0.1, size: int | None = None, seed: int = 0
) -> list[np.ndarray]:
    """Disjoint subsets of whole slides, sorted int64 arrays of rows; see `pcam.subsets` for subsets of patches.

    labels (N,) of 0 and 1, groups (N,) slide ids. Each subset has `size` rows, or ceil(fraction * N), and the class
    balance of `labels`, both as near as whole slides allow: of DRAWS random draws of slides for all n subsets the one
    is kept whose class counts are nearest, and `assign_splits` deals its slides out. Slides are drawn whatever their
    size, so subsets do not consist of small ones. The same arguments give the same subsets.

    Raises StudyError if there are fewer slides than subsets, or if a subset lacks a class or has fewer than half or
    more than twice as many rows as it should.
    """
    labels = np.asarray(labels).reshape(-1)
    size = int(np.ceil(round(fraction * len(labels), 9))) if size is None else size
    names, member = np.unique(np.asarray(groups), return_inverse=True)
    advice = "ask for fewer or larger subsets, or draw them by patch (subsets: {by: patch})"
    if len(names) < n or n * size > len(labels):
        raise StudyError(
            f"{n} subsets of {size:,} patches and of whole slides do not fit: the train split has {len(labels):,}"
            f" patches of {len(names)} slides; {advice}."
        )
    counts = np.stack([np.bincount(member[labels == c], minlength=len(names)) for c in (0, 1)], axis=1)
    wanted = n * size * counts.sum(0) / len(labels)
    rng, best = np.random.Generator(np.random.PCG64(seed)), (np.inf, np.arange(0))
    for _ in range(DRAWS):
        order = rng.permutation(len(names))
        miss = np.square(counts[order].cumsum(0) - wanted)[n - 1 :].sum(1)
        if (least := float(miss.min())) < best[0]:
            best = least, order[: int(miss.argmin()) + n]
    rows = np.flatnonzero(np.isin(member, best[1]))
    place = assign_splits(member[rows], labels[rows], np.ones(len(rows)), [1 / n] * n, seed)
    found = [rows[place == k].astype(np.int64) for k in range(n)]
    for k, part in enumerate(found):
        tumour = int(labels[part].sum())
        if not 0 < tumour < len(part) or not size / 2 <= len(part) <= 2 * size:
            raise StudyError(
                f"subset {k} of whole slides would hold {len(part):,} patches, {tumour:,} of class 1, where {size:,}"
                f" are asked for: the slides are too large or too few; {advice}."
            )
    return found


def _check_groups(rows: Sequence[Row], spelled: Sequence[Row]) -> None:
    """StudyError if a given split divides a group. `spelled` are the rows with their groups as they were written."""
    home: dict[str | None, int] = {}
    for i, row in enumerate(rows):
        first = home.setdefault(row.group, i)
        if rows[first].split != row.split:
            a, b = spelled[first], spelled[i]
            also = f" (also written {b.group!r})" if b.group != a.group else ""
            raise StudyError(
                f"group {a.group!r}{also} is in two splits ({a.file}: {a.split}, {b.file}: {b.split}): a slide or"
                " patient must stay in one; correct the column 'split', or drop it and let convert assign the groups."
            )


def place_rows(
    rows: list[Row], labels: np.ndarray, weights: np.ndarray, fractions: Sequence[float], seed: int, notes: list[str],
    spelled: Sequence[Row] | None = None,
) -> tuple[np.ndarray, str]:  # fmt: skip
    """Split number of each row, int64 (N,), and how it came about. StudyError if a split would lack a class."""
    grouped = rows[0].group is not None
    units = [row.group if grouped else row.file for row in rows]
    by = "by group" if grouped else "by image"
    if len(fractions) != 3 or min(fractions) <= 0 or not abs(sum(fractions) - 1) < 1e-6:
        raise StudyError(f"--fractions {' '.join(map(str, fractions))}: give three shares above 0 that add up to 1.")
    if seed < 0:
        raise StudyError(f"--seed {seed} must be 0 or more.")
    if given := rows[0].split is not None:
        if grouped:
            _check_groups(rows, spelled or rows)
        place = np.array([pcam.SPLITS.index(row.split) for row in rows])
        how = "given"
        if set(place) == {0, 2}:
            chosen = np.flatnonzero(place == 0)
            share = fractions[1] / (fractions[0] + fractions[1])
            part = assign_splits([units[i] for i in chosen], labels[chosen], weights[chosen], (1 - share, share), seed)
            place[chosen] = part
            how = f"train and test given; valid drawn {by} from train, {share:.0%} of it, seed {seed}"
            notes.append(f"no valid split was given: {part.sum():,} images of train were made one, {by}")
    else:
        place = assign_splits(units, labels, weights, fractions, seed)
        how = f"drawn {by} with shares {', '.join(f'{x:g}' for x in fractions)}, seed {seed}"
    for s, name in enumerate(pcam.SPLITS):
        held = [int(weights[(place == s) & (labels == c)].sum()) for c in (0, 1)]
        if min(held) == 0:
            raise StudyError(
                f"the {name} split would hold {held[0]} patches of class 0 and {held[1]} of class 1, each split needs"
                " both: "
                + (
                    "correct the column or folders that give the split."
                    if given
                    else "there are too few images or groups; give more, or a split of your own."
                )
            )
        share = sum(held) / weights.sum()
        if not given and abs(share - fractions[s]) > 0.05:
            notes.append(f"the {name} split holds {share:.0%} of the patches, not {fractions[s]:.0%}: groups are large")
    if not grouped:
        notes.append(
            "no groups: "
            + (
                "whether a slide or patient is in two splits was not checked"
                if given
                else (
                    "patches of one slide or patient may be in two splits, and scores then too good; add a column"
                    " 'group'"
                )
            )
        )
    return place, how
