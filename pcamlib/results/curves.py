"""Curves over numbers of real and synthetic patches, and the exchange rate between the two.

The exchange rate answers: at the subset's size n, how many real patches is one synthetic patch worth? A power law is
fitted to the AUC of real patches only, as is usual for learning curves (Viering and Loog 2023). What m synthetic
patches change beside n real ones is added to its value at n, and the number of real patches at which the law has that
AUC is read from it. If that is n', one synthetic patch is worth (n' - n) / m real ones.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import stats

from pcamlib.results import frame

KIND, METRIC = "curves", "auc_curve"
DRAWS = 4000
LEAST_SUBSETS = 3  # for a t interval
LEAST_RATES = 6  # for a bootstrap: below it the range of all draws covers less than 95 %
POWERS = np.linspace(0, 2, 81)
"""Exponents c of a - b n^-c that are tried; 0 stands for its limit, a + b log n."""


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
    """Mean over subsets with its 95 % t interval by point of `points`, only of points that every subset has: means over
    different subsets are not comparable. The interval is NaN for fewer than 3 subsets."""
    by = found.groupby(["generator", "selection", "n_real", "n_synthetic"])["auc"]
    table = pd.DataFrame({"mean": by.mean(), "n": by.count()})
    table = table[table["n"] == found["subset"].nunique()]
    half = stats.t.ppf(0.975, (table["n"] - 1).clip(lower=1)) * by.std()[table.index] / np.sqrt(table["n"])
    half = half.where(table["n"] >= LEAST_SUBSETS)
    return table.assign(low=table["mean"] - half, high=table["mean"] + half).reset_index()


def changes(found: pd.DataFrame, n: int) -> pd.DataFrame:
    """`points` beside n real patches, or of more real ones, with "auc" minus that of n real patches in the same subset;
    only subsets that have the latter."""
    real = found[(found["generator"] == "") & (found["n_synthetic"] == 0)]
    alone = real.loc[real["n_real"] == n].set_index("subset")["auc"]
    mixed = (found["n_real"] == n) & (found["n_synthetic"] > 0)
    more = (found["generator"] == "") & (found["n_real"] > n)
    beside = found[(mixed | more) & found["subset"].isin(alone.index)]
    return beside.assign(auc=beside["auc"] - beside["subset"].map(alone))


def exchange(found: pd.DataFrame, n: int, draws: int = DRAWS, seed: int = 0) -> pd.DataFrame:
    """How many real patches one synthetic patch is worth at n real ones, by generator, selection and n_synthetic.

    found: `points`. Columns: worth, low and high (95 %, a bootstrap over subsets, see `_ends`; NaN for fewer than
    LEAST_RATES), subsets, and limit: ">" or "<" where the number of real patches lies beyond the measured ones and
    `worth` is therefore their end, else "". Curves are averaged over subsets before they are fitted. Only subsets with
    both curves count. Empty without a curve of real patches of at least three sizes that rises.
    """
    real = found[(found["generator"] == "") & (found["n_synthetic"] == 0)]
    real = real.pivot(index="subset", columns="n_real", values="auc").dropna(axis=1)
    rows, keys = [], ["generator", "selection", "n_synthetic"]
    mixed = found[(found["generator"] != "") & (found["n_real"] == n)]
    sizes = real.columns.to_numpy(float)
    for key, part in mixed.groupby(keys):
        values = part.set_index("subset")["auc"]
        common = real.index.intersection(values.index)
        if n not in real.columns or len(sizes) < 3 or common.empty:
            continue
        curve = real.loc[common]
        change = (values[common] - curve[n]).to_numpy()
        reached = _reached(curve.to_numpy().mean(0)[None], sizes, n, change.mean()[None])[0]
        if np.isnan(reached):
            continue
        low = high = np.nan
        if len(common) >= LEAST_RATES:
            chosen = np.random.default_rng(seed).integers(len(common), size=(draws, len(common)))
            again = _reached(curve.to_numpy()[chosen].mean(1), sizes, n, change[chosen].mean(1))
            low, high = np.quantile(_worth(again, sizes, n, key[2]), _ends(len(common)))
        limit = ">" if reached > sizes[-1] else "<" if reached < sizes[0] else ""
        rows.append([*key, _worth(reached, sizes, n, key[2]), low, high, len(common), limit])
    return pd.DataFrame(rows, columns=[*keys, "worth", "low", "high", "subsets", "limit"])


def _worth(reached: np.ndarray, sizes: np.ndarray, n: int, n_synthetic: int) -> np.ndarray:
    """The exchange rate from numbers of real patches; those beyond the measured sizes count as the last of them."""
    return (np.clip(reached, sizes[0], sizes[-1]) - n) / n_synthetic


def _ends(subsets: int) -> list[float]:
    """Quantiles of a bootstrap over so few: wider than 2.5 % and 97.5 % by what a t interval with n - 1 is wider than a
    normal one with n (Hesterberg 2015, What Teachers Should Know About the Bootstrap, "expanded percentiles")."""
    tail = stats.norm.cdf(-np.sqrt(subsets / (subsets - 1)) * stats.t.ppf(0.975, subsets - 1))
    return [tail, 1 - tail]


def _reached(curves: np.ndarray, sizes: np.ndarray, n: int, change: np.ndarray) -> np.ndarray:
    """At how many real patches the law of each curve is `change` above its value at n.

    curves: AUC (D, S) at `sizes` (S,). change: (D,). Returns (D,); infinite above the law's ceiling, NaN for a curve
    that does not rise.
    """
    best = np.full(len(curves), np.inf)
    reached = np.full(len(curves), np.nan)
    for power in POWERS:
        # the term is scaled so that its slope at n is that of the logarithm, whatever the power
        term = _term(sizes / n, power)
        centred = term - term.mean()
        slope = curves @ centred / (centred @ centred)
        errors = ((curves - curves.mean(1, keepdims=True) - slope[:, None] * centred) ** 2).sum(1)
        better = (errors < best) & (slope > 0)
        best[better] = errors[better]
        reached[better] = n * _inverse(change[better] / slope[better], power)
    return reached


def _term(ratio: np.ndarray, power: float) -> np.ndarray:
    """(1 - ratio^-power) / power, and log(ratio) for power 0."""
    return np.log(ratio) if power == 0 else (1 - ratio**-power) / power


def _inverse(term: np.ndarray, power: float) -> np.ndarray:
    """The ratio at which `_term` has this value; infinite where it never does."""
    if power == 0:
        return np.exp(term)
    rest = 1 - power * term
    return np.where(rest > 0, np.maximum(rest, 1e-12) ** (-1 / power), np.inf)
