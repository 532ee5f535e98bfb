"""Curves over numbers of real and synthetic patches, and the exchange rate between the two.

The exchange rate answers: at the subset's size n, how many real patches is one synthetic patch worth? The curve of real
patches only, made monotone, says which number of real patches reaches the AUC of n real and m synthetic ones. If that
is n', one synthetic patch is worth (n' - n) / m real ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import isotonic_regression

from pcamlib.results import frame

KIND, METRIC = "curves", "auc_curve"
DRAWS = 4000
LEAST_SUBSETS = 3  # for an interval


def regime(n_real: int, n_synthetic: int) -> str:
    """What a point is called as an arm: "1000+500"."""
    return f"{n_real}+{n_synthetic}"


def size(results: pd.DataFrame) -> int:
    """Real patches of a subset, beside which synthetic ones are counted."""
    return int(results["subset_size"].dropna().min())


def points(results: pd.DataFrame) -> pd.DataFrame:
    """The points of all subsets that were run: subset, generator, selection ("" for real only), n_real, n_synthetic,
    auc."""
    found = frame.of_kind(results, KIND)
    found = found[found["metric"] == METRIC]
    numbers = found["regime"].str.extract(r"(?P<n_real>\d+)\+(?P<n_synthetic>\d+)").astype("int64")
    columns = found[["subset", "generator", "selection"]].fillna({"generator": "", "selection": ""})
    return columns.join(numbers).assign(auc=found["value"]).reset_index(drop=True)


def summary(found: pd.DataFrame) -> pd.DataFrame:
    """Mean over subsets with its 95 % t interval by point of `points`; the interval is NaN for fewer than 3 subsets."""
    by = found.groupby(["generator", "selection", "n_real", "n_synthetic"])["auc"]
    table = pd.DataFrame({"mean": by.mean(), "n": by.count()})
    half = stats.t.ppf(0.975, (table["n"] - 1).clip(lower=1)) * by.std() / np.sqrt(table["n"])
    half = half.where(table["n"] >= LEAST_SUBSETS)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half).reset_index()


def exchange(found: pd.DataFrame, n: int, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """How many real patches one synthetic patch is worth at n real ones, by generator, selection and n_synthetic.

    found: `points`. Columns: worth, low and high (95 %, percentiles of a bootstrap over subsets; NaN for fewer than 3),
    subsets, and limit: ">" or "<" where the AUC lies beyond the measured curve of real patches and `worth` is therefore
    its end, else "". Curves are averaged over subsets before they are read, because one subset's curve is too noisy to
    be inverted. Only subsets with both curves count. Empty without a curve of real patches.
    """
    real = found[(found["generator"] == "") & (found["n_synthetic"] == 0)]
    real = real.pivot(index="subset", columns="n_real", values="auc").dropna(axis=1)
    rows, keys = [], ["generator", "selection", "n_synthetic"]
    mixed = found[(found["generator"] != "") & (found["n_real"] == n)]
    sizes = real.columns.to_numpy(float)
    drawn: dict[tuple[int, ...], tuple[np.ndarray, list[Inverse]]] = {}  # by the subsets that count, mostly all
    for key, part in mixed.groupby(keys):
        values = part.set_index("subset")["auc"]
        common = real.index.intersection(values.index)
        if n not in real.columns or len(real.columns) < 2 or common.empty:
            continue
        curve, target = real.loc[common].to_numpy(), values[common].to_numpy()
        worth, limit = _worth(_inverse(curve.mean(0), sizes), target.mean(), n, key[2])
        low = high = np.nan
        if len(common) >= LEAST_SUBSETS:
            if tuple(common) not in drawn:
                chosen = np.random.default_rng(seed).integers(len(common), size=(draws, len(common)))
                drawn[tuple(common)] = chosen, [_inverse(curve[some].mean(0), sizes) for some in chosen]
            chosen, inverses = drawn[tuple(common)]
            again = [_worth(inverse, target[some].mean(), n, key[2])[0] for some, inverse in zip(chosen, inverses)]
            low, high = np.quantile(again, [0.025, 0.975])
        rows.append([*key, worth, low, high, len(common), limit])
    return pd.DataFrame(rows, columns=[*keys, "worth", "low", "high", "subsets", "limit"])


Inverse = tuple[np.ndarray, np.ndarray]
"""A curve of AUC over the number of real patches, read backwards: AUC (ascending), and the logarithm of the number."""


def _inverse(curve: np.ndarray, sizes: np.ndarray) -> Inverse:
    """From AUC (S,) at `sizes` (S,)."""
    rising = isotonic_regression(curve).x
    # where the curve is flat, the smallest number of patches reaches its height
    heights, first = np.unique(rising, return_index=True)
    return heights, np.log(sizes)[first]


def _worth(inverse: Inverse, auc: float, n: int, n_synthetic: int) -> tuple[float, str]:
    """The exchange rate of one synthetic set, and on which side it lies beyond the curve, if it does."""
    heights, numbers = inverse
    reached = np.exp(np.interp(auc, heights, numbers)) if len(heights) > 1 else float(n)
    limit = ">" if auc > heights[-1] else "<" if auc < heights[0] else ""
    return (reached - n) / n_synthetic, limit
