// The controls and tables of the page "Recompute the results" (see recompute.js for the arithmetic).
(() => {
  const DRAWS = 1000;
  const MEASURES = { auc: "AUC", sensitivity: "sensitivity", specificity: "specificity" };
  const UNITS = { patch: "test patches (bootstrap)", slide: "slides (bootstrap)", subset: "subsets (Student's t)" };

  const data = JSON.parse(document.getElementById("recompute-data").textContent);
  const run = new recompute.Run(data);
  const [choices, difference, verdicts] = ["choices", "difference", "claims"].map((name) =>
    document.getElementById(`recompute-${name}`),
  );

  // ---------------------------------------------------------------------------------------------- small helpers

  function element(tag, properties = {}, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(properties)) {
      if (name in made) made[name] = value;
      else made.setAttribute(name, value);
    }
    made.append(...children);
    return made;
  }

  /** A control under its label. */
  function labelled(label, control, hint) {
    const id = `recompute-${label.toLowerCase().replace(/[^a-z]+/g, "-")}`;
    control.id = id;
    const parts = [element("label", { htmlFor: id }, label), control];
    if (hint) {
      control.setAttribute("aria-describedby", `${id}-hint`);
      parts.push(element("small", { id: `${id}-hint` }, hint));
    }
    return element("div", { className: "recompute-control" }, ...parts);
  }

  function select(options, chosen) {
    return element("select", {}, ...options.map(([value, text]) => new Option(text, value, false, value === chosen)));
  }

  function number(value, min, max, step) {
    const control = element("input", { type: "number", min, max, step, value });
    control.required = true;
    return control;
  }

  /** The control's number if it is one of those allowed, else null; the browser marks the control. */
  const valueOf = (control) => (control.checkValidity() ? control.valueAsNumber : null);

  const signed = (value, digits) => {
    const text = Math.abs(value).toFixed(digits);
    return Number(text) === 0 ? text : (value < 0 ? "−" : "+") + text;
  };
  const plain = (value, digits) => value.toFixed(digits).replace("-", "−");
  const span = ({ low, high }, show) =>
    Number.isFinite(low)
      ? `${show(low)} to ${show(high)}`
      : Number.isNaN(low)
        ? "no interval"
        : "the same in every subset";
  const percent = (value) => plain(100 * value, 2);
  const points = (value) => signed(100 * value, 2);
  const subsetsOf = (count) => `${count} subset${count === 1 ? "" : "s"}`;
  const capital = (text) => text[0].toUpperCase() + text.slice(1);

  function table(caption, headings, rows) {
    const head = element("tr", {}, ...headings.map((text) => element("th", { scope: "col" }, text)));
    const body = rows.map(([first, ...cells]) =>
      element(
        "tr",
        {},
        element("th", { scope: "row" }, first),
        ...cells.map((cell) => element("td", {}, ...[cell].flat())),
      ),
    );
    return element(
      "div",
      { className: "recompute-table", tabIndex: 0, role: "region", "aria-label": caption },
      element(
        "table",
        { className: "table" },
        element("caption", {}, caption),
        element("thead", {}, head),
        element("tbody", {}, ...body),
      ),
    );
  }

  // ---------------------------------------------------------------------------------------------- what is measured

  const device = select(
    Object.entries(data.devices).map(([name, { title }]) => [name, title]),
    data.start,
  );
  const confidence = number(95, 50, 99.9, 0.1);
  const boxes = data.subsets.map((subset) => element("input", { type: "checkbox", checked: true, value: subset }));
  const fieldset = element(
    "fieldset",
    { className: "recompute-control" },
    element("legend", {}, "Subsets"),
    ...boxes.map((box) => element("label", {}, box, ` ${box.value}`)),
  );
  choices.append(
    labelled("Measured by a", device),
    labelled("Confidence, %", confidence, "of every interval; verdicts use 1 − confidence"),
    fieldset,
  );

  const chosenSubsets = () => boxes.filter((box) => box.checked).map((box) => Number(box.value));

  // ---------------------------------------------------------------------------------------------- one difference

  const first = select([]);
  const second = select([]);
  const threshold = number(0.5, 0.01, 0.99, 0.01);
  const units = Object.entries(UNITS).filter(
    ([name]) => name === "subset" || (data.curves.length && (name === "patch" || data.groups)),
  );
  const unit = select(units, "subset");
  const seed = number(0, 0, 4294967295, 1);
  const said = element("p", { className: "recompute-said", role: "status" });
  const drawing = element("div");
  const shown = element("div");
  difference.append(
    element(
      "form",
      { "aria-label": "One difference" },
      labelled("Arm", first),
      labelled("Minus", second),
      labelled("Resampling unit", unit),
      labelled("Threshold", threshold, "a score from here on is called tumour"),
      labelled("Seed", seed, "of the bootstrap's draws"),
    ),
    said,
    drawing,
    shown,
  );

  function fillArms() {
    const arms = data.devices[device.value].arms.filter(
      ({ name }) => !data.curves.length || run.curves[device.value][name],
    );
    for (const [control, preferred] of [
      [first, "transfer-unet-realism"],
      [second, data.traditional],
    ]) {
      const wanted = control.value || preferred;
      const groups = new Map();
      for (const { name, title, group } of arms) {
        if (!groups.has(group)) groups.set(group, element("optgroup", { label: group }));
        groups.get(group).append(new Option(title, name));
      }
      control.replaceChildren(...(control === second ? [new Option("nothing", "")] : []), ...groups.values());
      if (arms.some(({ name }) => name === wanted)) control.value = wanted;
      else control.selectedIndex = 0;
    }
  }
  const titleOf = (name) => data.devices[device.value].arms.find((arm) => arm.name === name).title;

  function showDifference() {
    const level = valueOf(confidence);
    const at = valueOf(threshold);
    const from = valueOf(seed);
    drawing.replaceChildren();
    shown.replaceChildren();
    if ([level, at, from].includes(null)) {
      said.textContent = "A number is missing or outside its range.";
      return;
    }
    const arms = [first.value, second.value].filter(Boolean);
    const asked = {
      device: device.value,
      subsets: chosenSubsets(),
      arms,
      threshold: at,
      unit: unit.value,
      level: level / 100,
    };
    const began = performance.now();
    const { rows, used } = run.compare({ ...asked, draws: DRAWS, seed: from });
    const took = Math.round(performance.now() - began);
    if (!used.length) {
      said.textContent = "No chosen subset has the scores of these arms: choose another subset or arm.";
      return;
    }
    const names = [...arms.map(titleOf), "difference, points"];
    const left = chosenSubsets().length - used.length;
    const { mean, low, high } = rows.at(-1).auc;
    const show = arms[1] ? points : percent;
    const drawnOf = unit.value === "slide" ? "slides" : "test patches";
    const drawn = `over ${DRAWS.toLocaleString("en")} draws of ${drawnOf} (${took} ms)`;
    const how = unit.value === "subset" ? `over ${subsetsOf(used.length)}` : drawn;
    const judged =
      !arms[1] || !Number.isFinite(low)
        ? ""
        : low > 0 || high < 0
          ? " It does not contain zero."
          : " It contains zero.";
    said.textContent =
      `${names[0]}${arms[1] ? ` minus ${names[1]}` : ""}: ${show(mean)} ${arms[1] ? "points of AUC" : "% AUC"}. ` +
      `${plain(level, level % 1 ? 1 : 0)} % interval ${how}: ${span(rows.at(-1).auc, show)}.${judged}` +
      (left ? ` Without ${subsetsOf(left)} whose scores are not on this page.` : "");
    if (arms[1] && Number.isFinite(low)) drawing.append(strip(rows.at(-1).auc));
    shown.append(
      table(
        "Means and intervals, %",
        ["arm", ...Object.values(MEASURES)],
        rows.map((row, i) => [
          names[i],
          ...Object.keys(MEASURES).map((name) => {
            const display = i === 2 ? points : percent;
            return [display(row[name].mean), element("small", {}, span(row[name], display))];
          }),
        ]),
      ),
      element(
        "details",
        {},
        element("summary", {}, "AUC by subset"),
        table(
          "AUC of each subset, %",
          ["subset", ...names.slice(0, arms.length), ...(arms[1] ? ["difference"] : [])],
          used.map((subset, k) => [
            String(subset),
            ...rows.map((row, i) => (i === 2 ? points : percent)(row.auc.values[k])),
          ]),
        ),
      ),
    );
  }

  /** The difference with its interval and its subsets on a line, as a picture. */
  function strip({ mean, low, high, values }) {
    const margin = (valueOf(marginControl) ?? 0) / 100;
    const ends = [...values, low, high, 0, margin, -margin].filter(Number.isFinite);
    const [left, right] = [Math.min(...ends), Math.max(...ends)];
    const x = (value) => 20 + (600 * (value - left)) / (right - left || 1);
    const node = (tag, attributes) => {
      const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
      for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
      return made;
    };
    const label = (at, text) => {
      const made = node("text", {
        x: x(at),
        y: 90,
        "text-anchor":
          at - left > 0.8 * (right - left) ? "end" : at - left < 0.2 * (right - left) ? "start" : "middle",
      });
      made.textContent = text;
      return made;
    };
    const title =
      `Difference in AUC: ${points(mean)} points, interval ${span({ low, high }, points)}; ` +
      `subsets ${values.map(points).join(", ")}`;
    const picture = node("svg", { viewBox: "0 0 640 96", role: "img", "aria-label": title });
    picture.append(
      node("rect", { class: "recompute-margin", x: x(-margin), y: 8, width: x(margin) - x(-margin), height: 56 }),
      node("line", { class: "recompute-zero", x1: x(0), x2: x(0), y1: 4, y2: 68 }),
      node("line", { class: "recompute-interval", x1: x(low), x2: x(high), y1: 26, y2: 26 }),
      node("rect", { class: "recompute-mean", x: x(mean) - 6, y: 20, width: 12, height: 12 }),
      ...values.map((value) => node("circle", { class: "recompute-subset", cx: x(value), cy: 52, r: 6 })),
      label(0, "0"),
    );
    const caption = element(
      "figcaption",
      {},
      "Square: the mean, with its interval. Circles: the subsets. Band: the margin around zero.",
    );
    return element("figure", {}, picture, caption);
  }

  // ---------------------------------------------------------------------------------------------- the claims

  const marginControl = number(100 * data.margin, 0, 5, 0.01);
  const lead = number(0, -5, 5, 0.01);
  const ruled = element("input", { type: "checkbox", checked: true, id: "recompute-ruled" });
  const back = element("button", { type: "button" }, "Back to the study's choices");
  const counted = element("p", { className: "recompute-said", role: "status" });
  const reason = element("p");
  const cells = data.claims.map(() => [element("td"), element("td"), element("ul")]);
  const lines = data.claims.map((claim, i) => {
    const rule = element("p", {}, element("strong", {}, "Rule. "), claim.rule);
    const details = element(
      "details",
      {},
      element("summary", {}, `${claim.number}. ${claim.text}`),
      rule,
      cells[i][2],
    );
    details.addEventListener("toggle", () => showStatements(i));
    return element("tr", {}, element("th", { scope: "row" }, details), cells[i][0], cells[i][1]);
  });
  const heading = element(
    "tr",
    {},
    ...["Claim", "Published", "By your choices"].map((text) => element("th", { scope: "col" }, text)),
  );
  verdicts.append(
    element(
      "form",
      { "aria-label": "The thirteen claims" },
      labelled("Margin, points", marginControl, "a smaller difference counts as none: claims 8, 9, 11"),
      labelled("Required lead, points", lead, "what a gain must exceed: claims 5 to 8, 11"),
      element(
        "div",
        { className: "recompute-control recompute-wide" },
        element(
          "label",
          { htmlFor: "recompute-ruled" },
          ruled,
          " No verdict on classifiers that a trivial baseline equals, or where none was run",
        ),
        reason,
      ),
      back,
    ),
    counted,
    stacked(
      element(
        "table",
        { className: "table recompute-verdicts" },
        element("caption", {}, "Verdicts. Open a claim for its rule and its numbers."),
        element("thead", {}, heading),
        element("tbody", {}, ...lines),
      ),
    ),
  );

  /** A table with its roles written out: a narrow screen shows its rows in a grid, which would lose them. */
  function stacked(made) {
    made.setAttribute("role", "table");
    for (const part of made.querySelectorAll("thead, tbody")) part.setAttribute("role", "rowgroup");
    for (const row of made.rows) row.setAttribute("role", "row");
    for (const cell of made.querySelectorAll("th, td"))
      cell.setAttribute("role", { col: "columnheader", row: "rowheader" }[cell.scope] || "cell");
    return made;
  }

  let current = [];
  function showVerdicts() {
    const [level, margin, ahead] = [confidence, marginControl, lead].map(valueOf);
    if ([level, margin, ahead].includes(null)) {
      counted.textContent = "A number is missing or outside its range.";
      return;
    }
    const choice = {
      device: device.value,
      subsets: chosenSubsets(),
      level: level / 100,
      margin: margin / 100,
      lead: ahead / 100,
      ruled: ruled.checked,
    };
    current = run.verdicts(choice);
    reason.textContent = `Here ${run.trust(choice).text}.`;
    const published = data.devices[device.value].verdicts;
    const counts = new Map();
    let changed = 0;
    current.forEach(({ word }, i) => {
      const differs = word !== published[i];
      changed += differs;
      counts.set(word, (counts.get(word) || 0) + 1);
      cells[i][0].textContent = published[i];
      cells[i][1].replaceChildren(differs ? element("strong", {}, `${word} (changed)`) : word);
      showStatements(i);
    });
    const tally = [...counts].map(([word, count]) => `${count} ${word}`).join(", ");
    counted.textContent = `${capital(tally)}. ${changed || "None"} of ${current.length} changed.`;
  }

  /** The numbers of a claim that is open. */
  function showStatements(i) {
    const list = cells[i][2];
    if (!current[i] || !list.parentElement.open) return;
    const { because, statements } = current[i];
    const shownLines = statements.map(({ text, found }) => {
      const named = text.replace("0.1 points", `${marginControl.value} points`);
      if (!found) return element("li", {}, `${named}: not run in two of these subsets`);
      const digits = Math.abs(found.mean) >= 1 ? 2 : 4;
      const show = (value) => signed(value, digits);
      const p = found.p < 0.001 ? "p < 0.001" : `p = ${found.p.toFixed(3)}`;
      return element("li", {}, `${named}: ${show(found.mean)} (${span(found, show)}), ${p}`);
    });
    list.replaceChildren(...(because ? [element("li", {}, `${capital(because)}.`)] : []), ...shownLines);
  }

  // ---------------------------------------------------------------------------------------------- changes

  function showAll() {
    showDifference();
    showVerdicts();
  }
  for (const form of document.querySelectorAll("form.recompute, .recompute form"))
    form.addEventListener("submit", (event) => event.preventDefault());
  choices.addEventListener("change", (event) => {
    if (event.target === device) fillArms();
    showAll();
  });
  difference.addEventListener("change", showDifference);
  verdicts.addEventListener("change", (event) => {
    if (event.target === marginControl) showDifference(); // its picture has the margin
    showVerdicts();
  });
  back.addEventListener("click", () => {
    [confidence.value, marginControl.value, lead.value, ruled.checked] = [95, 100 * data.margin, 0, true];
    for (const box of boxes) box.checked = true;
    showAll();
  });
  fillArms();
  showAll();
  document.documentElement.classList.add("recompute-on");
})();
