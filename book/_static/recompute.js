// The arithmetic of the page "Recompute the results": no DOM, no network. pcamlib/report/recompute.py writes the data,
// pcamlib/results has the same formulas in Python, and tests/book/test_recompute.py compares the two.
const recompute = (() => {
  // ---------------------------------------------------------------------------------------------- random draws

  /** mulberry32 (Tommy Ettinger): a function that returns whole numbers from 0 to 2^32 - 1. */
  function mulberry32(seed) {
    let state = seed >>> 0;
    return () => {
      state = (state + 0x6d2b79f5) | 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return (t ^ (t >>> 14)) >>> 0;
    };
  }

  /** A function that puts how often each of n patches is drawn into counts; whole slides where codes (n) are given. */
  function drawing(n, codes, seed) {
    const next = mulberry32(seed);
    const units = codes ? Math.max(...codes) + 1 : n;
    const slides = codes && new Int32Array(units);
    return (counts) => {
      const drawn = (slides || counts).fill(0);
      for (let i = 0; i < units; i++) drawn[Math.floor((next() * units) / 4294967296)]++;
      if (codes) for (let i = 0; i < n; i++) counts[i] = slides[codes[i]];
    };
  }

  // ---------------------------------------------------------------------------------------------- scores

  /** Whole numbers of `bits` bits each, the lowest bit first, from base64. */
  function unpacked(text, bits, count) {
    const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
    const found = new Uint32Array(count);
    for (let i = 0, held = 0, value = 0, at = 0; i < count; i++) {
      for (; held < bits; held += 8) value += bytes[at++] * 2 ** held;
      found[i] = value % 2 ** bits;
      value = Math.floor(value / 2 ** bits);
      held -= bits;
    }
    return found;
  }

  /**
   * The scores of a classifier, from ranks and cuts (see recompute.py). `tumour` and `normal`: patches of each class
   * from the lowest score to the highest. `below` and `upTo`: how many normal patches have a lower score than each of
   * `tumour`, and at most its score. `missed` and `rejected`: how many of each class are below each threshold.
   */
  function curve(numbers, labels) {
    const n = labels.length;
    const ranks = numbers.subarray(0, n);
    const places = new Uint32Array(n + 1);
    for (const rank of ranks) places[rank + 1]++;
    for (let i = 0; i < n; i++) places[i + 1] += places[i];
    const order = new Uint32Array(n);
    for (let i = 0; i < n; i++) order[places[ranks[i]]++] = i;
    const [normal, tumour] = [0, 1].map((label) => order.filter((i) => labels[i] === label));
    /** How many of the sorted patches have a rank below each of ascending ones. */
    const count = (patches, ascending) => {
      let found = 0;
      return ascending.map((rank) => {
        while (found < patches.length && ranks[patches[found]] < rank) found++;
        return found;
      });
    };
    return {
      tumour,
      normal,
      below: count(
        normal,
        tumour.map((i) => ranks[i]),
      ),
      upTo: count(
        normal,
        tumour.map((i) => ranks[i] + 1),
      ),
      missed: count(tumour, numbers.subarray(n)),
      rejected: count(normal, numbers.subarray(n)),
      sums: new Float64Array(normal.length + 1),
    };
  }

  /**
   * [AUC, sensitivity, specificity] of patches that count `weights` times, at the threshold of number `place`; NaN
   * without the class. This runs once per classifier and draw.
   */
  function measures({ tumour, normal, below, upTo, missed, rejected, sums }, weights, place) {
    for (let i = 0; i < normal.length; i++) sums[i + 1] = sums[i] + weights[normal[i]];
    let [wins, positives, called] = [0, 0, 0];
    for (let i = 0; i < tumour.length; i++) {
      const weight = weights[tumour[i]];
      wins += weight * (sums[below[i]] + sums[upTo[i]]);
      positives += weight;
      if (i >= missed[place]) called += weight;
    }
    const negatives = sums[normal.length];
    return [wins / (2 * positives * negatives), called / positives, sums[rejected[place]] / negatives];
  }

  // ---------------------------------------------------------------------------------------------- statistics

  const mean = (values) => values.reduce((sum, v) => sum + v, 0) / values.length;

  /** Logarithm of the gamma function for x > 0 (Lanczos, g = 7, nine terms). */
  function logGamma(x) {
    const c = [
      0.99999999999980993, 676.5203681218851, -1259.1392167224028, 771.32342877765313, -176.61502916214059,
      12.507343278686905, -0.13857109526572012, 9.9843695780195716e-6, 1.5056327351493116e-7,
    ];
    if (x < 0.5) return Math.log(Math.PI / Math.sin(Math.PI * x)) - logGamma(1 - x);
    const t = x + 6.5;
    const sum = c.reduce((s, v, i) => (i ? s + v / (x - 1 + i) : v), 0);
    return 0.5 * Math.log(2 * Math.PI) + (x - 0.5) * Math.log(t) - t + Math.log(sum);
  }

  /** Regularised incomplete beta function, by Lentz's continued fraction (Numerical Recipes, 6.4). */
  function incompleteBeta(a, b, x) {
    if (x <= 0 || x >= 1) return x <= 0 ? 0 : 1;
    if (x > (a + 1) / (a + b + 2)) return 1 - incompleteBeta(b, a, 1 - x);
    const tiny = 1e-300;
    let [c, d] = [
      1,
      (1 / Math.max(tiny, Math.abs(1 - ((a + b) * x) / (a + 1)))) * Math.sign(1 - ((a + b) * x) / (a + 1)),
    ];
    let h = d;
    for (let m = 1; m < 1000; m++) {
      let change = 1;
      for (const term of [
        (m * (b - m) * x) / ((a + 2 * m - 1) * (a + 2 * m)),
        (-(a + m) * (a + b + m) * x) / ((a + 2 * m) * (a + 2 * m + 1)),
      ]) {
        d = 1 / (1 + term * d || tiny);
        c = 1 + term / c || tiny;
        change = c * d;
        h *= change;
      }
      if (Math.abs(change - 1) < 1e-15) break;
    }
    return (Math.exp(logGamma(a + b) - logGamma(a) - logGamma(b) + a * Math.log(x) + b * Math.log1p(-x)) * h) / a;
  }

  /** Two-sided p value of Student's t. */
  const tValue = (t, df) => incompleteBeta(df / 2, 0.5, df / (df + t * t));

  /** The t whose two-sided p value is p: bisection. */
  const quantiles = new Map();
  function tQuantile(p, df) {
    const key = `${p} ${df}`;
    if (!quantiles.has(key)) {
      let [low, high] = [0, 1];
      while (tValue(high, df) > p) high *= 2;
      for (let i = 0; i < 100; i++) {
        const middle = (low + high) / 2;
        if (tValue(middle, df) > p) low = middle;
        else high = middle;
      }
      quantiles.set(key, (low + high) / 2);
    }
    return quantiles.get(key);
  }

  /** `inference.over_subsets`: mean, interval and p value of one value per subset; null with fewer than two. */
  function overSubsets(values, level, resolution) {
    const n = values.length;
    if (n < 2) return null;
    const middle = mean(values);
    const sd = Math.sqrt(values.reduce((sum, v) => sum + (v - middle) ** 2, 0) / (n - 1));
    if (sd < resolution)
      return {
        mean: middle,
        low: -Infinity,
        high: Infinity,
        p: Math.abs(middle) >= resolution ? 2 ** (1 - n) : 1,
        n,
      };
    const error = sd / Math.sqrt(n);
    const half = tQuantile(1 - level, n - 1) * error;
    return { mean: middle, low: middle - half, high: middle + half, p: tValue(middle / error, n - 1), n };
  }

  /** Quantiles of values by linear interpolation, as NumPy's; NaN are left out. */
  function quantile(values, ...shares) {
    const sorted = Float64Array.from(values)
      .filter((v) => !Number.isNaN(v))
      .sort();
    return shares.map((share) => {
      const place = share * (sorted.length - 1);
      const [low, high] = [sorted[Math.floor(place)], sorted[Math.ceil(place)]];
      return low + (high - low) * (place - Math.floor(place));
    });
  }

  /** Ranks from 1, means of ranks where values are equal. */
  function midranks(values) {
    return values.map((v) => values.filter((w) => w < v).length + (values.filter((w) => w === v).length + 1) / 2);
  }

  /** Spearman's rank correlation; NaN where all values of a list are equal. */
  function spearman(a, b) {
    const [x, y] = [a, b].map((values) => {
      const ranks = midranks(values);
      return ranks.map((rank) => rank - mean(ranks));
    });
    const product = (u, v) => u.reduce((sum, value, i) => sum + value * v[i], 0);
    return product(x, y) / Math.sqrt(product(x, x) * product(y, y));
  }

  // ---------------------------------------------------------------------------------------------- a run

  /** The published run: its data, and its curves by device, arm and subset, each a list over seeds. */
  class Run {
    constructor(data) {
      this.data = data;
      this.labels = Uint8Array.from(data.labels, Number);
      const ones = new Uint8Array(this.labels.length).fill(1);
      this.curves = {};
      for (const device of Object.keys(data.devices)) this.curves[device] = {};
      const count = this.labels.length + data.thresholds.length;
      data.curves.forEach(([device, subset, arm], i) => {
        const bySubset = (this.curves[device][arm] ||= {});
        (bySubset[subset] ||= []).push(curve(unpacked(data.packed[i], data.bits, count), this.labels));
      });
      // the same as the published values, but for arms whose scores were not kept
      this.aucs = {};
      for (const [device, { values }] of Object.entries(data.devices)) {
        this.aucs[device] = {};
        for (const [arm, published] of Object.entries(values.auc)) {
          const kept = this.curves[device][arm] || {};
          this.aucs[device][arm] = data.subsets.map((subset, i) =>
            kept[subset] ? mean(kept[subset].map((c) => measures(c, ones, 0)[0])) : published[i],
          );
        }
      }
    }

    /** Those of `subsets` for which the scores of all arms are here. */
    withScores(device, subsets, arms) {
      return subsets.filter((subset) => arms.every((arm) => this.curves[device][arm]?.[subset]));
    }

    /** {auc, sensitivity, specificity} of an arm, each a list over subsets of means over seeds. */
    measures(device, arm, subsets, place, weights) {
      const found = { auc: [], sensitivity: [], specificity: [] };
      for (const subset of subsets) {
        const bySeed = this.curves[device][arm][subset].map((c) => measures(c, weights, place));
        Object.values(found).forEach((values, m) => values.push(mean(bySeed.map((three) => three[m]))));
      }
      return found;
    }

    /**
     * An arm, another or null, and the first minus the other: for each of the three measures its value by subset, its
     * mean and its interval.
     *
     * unit: "subset" (Student's t), or "patch" or "slide" (percentiles of `draws` draws, a mean over subsets each).
     */
    compare({ device, subsets, arms, threshold, unit, level, draws = 1000, seed = 0 }) {
      const { data, labels } = this;
      const used = this.withScores(device, subsets, arms);
      const place = data.thresholds.findIndex((t) => Math.abs(t - threshold) < 1e-9);
      const counts = new Int32Array(labels.length).fill(1);
      const read = () => {
        const found = arms.map((arm) => this.measures(device, arm, used, place, counts));
        const minus = (name) => found[0][name].map((v, i) => v - found[1][name][i]);
        if (found[1]) found.push(Object.fromEntries(Object.keys(found[0]).map((name) => [name, minus(name)])));
        return found;
      };
      const rows = read().map((row) =>
        Object.fromEntries(
          Object.entries(row).map(([name, values]) => [name, { values, mean: mean(values), low: NaN, high: NaN }]),
        ),
      );
      if (unit === "subset") {
        for (const row of rows)
          for (const cell of Object.values(row))
            Object.assign(cell, overSubsets(cell.values, level, data.resolution));
      } else if (used.length) {
        const draw = drawing(labels.length, unit === "slide" ? data.groups : null, seed);
        const drawn = rows.map((row) => Object.fromEntries(Object.keys(row).map((name) => [name, []])));
        for (let i = 0; i < draws; i++) {
          draw(counts);
          read().forEach((row, r) => {
            for (const name of Object.keys(row)) drawn[r][name].push(mean(row[name]));
          });
        }
        rows.forEach((row, r) => {
          for (const [name, cell] of Object.entries(row))
            [cell.low, cell.high] = quantile(drawn[r][name], (1 - level) / 2, (1 + level) / 2);
        });
      }
      return { rows, used };
    }

    // -------------------------------------------------------------------------------------------- the claims

    /** A metric of an arm by subset of the run, or undefined. */
    values(device, metric, arm) {
      return metric === "auc" ? this.aucs[device][arm] : this.data.devices[device].values[metric][arm];
    }

    /** `Measured.values`: a weighted sum of arms by chosen subset, null where one of the arms did not run. */
    contrast({ device, subsets }, weights, metric) {
      return subsets.map((subset) => {
        const place = this.data.subsets.indexOf(subset);
        const terms = Object.entries(weights).map(([arm, w]) => {
          const value = this.values(device, metric, arm)?.[place];
          return value === null || value === undefined ? NaN : w * value;
        });
        const sum = terms.reduce((a, b) => a + b, 0);
        return Number.isNaN(sum) ? null : sum;
      });
    }

    /** What a statement asks (`claims.Statement.asked`), as one value per subset that has all of its arms. */
    answer(choice, asked) {
      if (asked.kind === "contrast") {
        const lead = asked.metric === "auc" ? choice.lead : 0;
        const offset = asked.absence ? choice.margin : asked.offset - lead;
        return this.contrast(choice, asked.weights, asked.metric)
          .filter((v) => v !== null)
          .map((v) => v + offset);
      }
      if (asked.kind === "share") {
        const leads = asked.rivals.map((rival) => this.contrast(choice, { [asked.arm]: 1, [rival]: -1 }, "auc"));
        const won = (lead) => (lead > choice.margin ? 1 : Math.abs(lead) <= choice.margin ? 0.5 : 0);
        return choice.subsets.flatMap((_, k) => {
          const own = leads.map((lead) => lead[k]);
          return own.includes(null) ? [] : [mean(own.map(won)) + asked.offset];
        });
      }
      return choice.subsets.flatMap((_, k) => {
        let sum = asked.offset;
        for (const pair of asked.pairs) {
          const [a, b] = [
            [pair.first, pair.first_metric],
            [pair.second, pair.second_metric],
          ].map(([contrasts, metric]) => contrasts.map((weights) => this.contrast(choice, weights, metric)[k]));
          sum += a.includes(null) || b.includes(null) ? NaN : pair.weight * spearman(a, b);
        }
        return Number.isNaN(sum) ? [] : [sum];
      });
    }

    /** `rivals.trust`: {measures, text}; measures is null where nothing can be said. */
    trust({ device, subsets }) {
      const { traditional, trivial } = this.data;
      const ran = Object.keys(trivial).filter((arm) => this.values(device, "auc", arm));
      const lines = [traditional, ...ran].map((arm) => this.contrast({ device, subsets }, { [arm]: 1 }, "auc"));
      const whole = subsets.map((_, k) => k).filter((k) => lines.every((line) => line[k] !== null));
      if (!ran.length || !whole.length) return { measures: null, text: "no trivial baseline was run" };
      const [own, ...others] = lines.map((line) => mean(whole.map((k) => line[k])));
      const best = others.indexOf(Math.max(...others));
      const percent = (v) => (100 * v).toFixed(2);
      const name = trivial[ran[best]].toLowerCase();
      return {
        measures: own > others[best],
        text:
          `traditional augmentation reaches AUC ${percent(own)} %, ` +
          `the best trivial baseline (${name}) ${percent(others[best])} %`,
      };
    }

    /**
     * The verdicts on all claims: [{word, because, statements: [{text, found}]}], as `claims.verdict` gives them.
     *
     * choice: device, subsets, level, margin and lead (fractions of AUC), and `ruled`: no verdict on classifiers
     * where a trivial baseline is as good.
     */
    verdicts(choice) {
      const alpha = 1 - choice.level;
      const trust = this.trust(choice);
      return this.data.claims.map((claim) => {
        const decided = claim.parts.map((part) => {
          const statements = part.statements.map(({ text, asked }) => ({
            text,
            found: overSubsets(this.answer(choice, asked), choice.level, this.data.resolution),
          }));
          return { word: (part.every ? judged : notAllPositive)(statements, alpha), statements };
        });
        const words = decided.map((part) => part.word);
        let word = ["contradicted", "not testable here", "undecided"].find((w) => words.includes(w)) || "supported";
        let because = word === "not testable here" ? "an arm was not run, or in fewer than two of these subsets" : "";
        if (claim.barred) [word, because] = ["not testable here", claim.barred];
        if (choice.ruled && claim.of_classifiers && !trust.measures) [word, because] = ["no verdict", trust.text];
        return { word, because, statements: decided.flatMap((part) => part.statements) };
      });
    }
  }

  /** `claims.judged`: the word on "all of these are positive". */
  function judged(statements, alpha) {
    const tested = statements.map((s) => s.found).filter(Boolean);
    if (tested.some((e) => e.mean < 0 && e.p < alpha / tested.length)) return "contradicted";
    if (tested.length < statements.length) return "not testable here";
    return tested.every((e) => e.mean > 0 && e.p < alpha) ? "supported" : "undecided";
  }

  /** `claims.not_all_positive`. */
  function notAllPositive(statements, alpha) {
    if (statements.some((s) => s.found && s.found.mean <= 0)) return "supported";
    const word = judged(statements, alpha);
    return word === "supported" ? "contradicted" : word;
  }

  return { Run, mulberry32, drawing, tValue, tQuantile, overSubsets, quantile, spearman };
})();
