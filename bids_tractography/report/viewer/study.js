/* The study: one filter and one order for table, plots and pictures. */
"use strict";
(() => {
  const byId = (id) => document.getElementById(id);
  const study = JSON.parse(byId("study-meta").textContent);
  const n = study.names.length;
  if (!n) return;
  const PAGE = 100, MANY = 500, SVG = "http://www.w3.org/2000/svg";
  const columns = study.columns.map((column, k) => {
    const raw = study.values[k];
    const values = raw.levels
      ? raw.codes.map((code) => (code < 0 ? null : raw.levels[code])) : raw;
    return { ...column, values, out: new Set(study.outliers[k]) };
  });
  const outlying = new Set(study.outliers.flat());
  const byName = new Map(columns.map((column) => [column.name.toLowerCase(), column]));
  const texts = study.names.map((name, i) => [name, ...columns
    .filter((column) => !column.numeric && column.values[i] !== null)
    .map((column) => column.values[i])].join("\n").toLowerCase());
  const collator = new Intl.Collator(undefined, { numeric: true });
  const state = { sort: -1, down: false, shown: PAGE, group: "main", marked: -1, kept: false };
  let order = [...study.names.keys()];

  const make = (tag, attributes = {}, ...children) => {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  };

  // Figures

  const whole = new Intl.NumberFormat("en");
  const formats = columns.map(({ values, numeric }) => {
    if (!numeric || values.every((value) => value === null || Number.isInteger(value))) return whole;
    const sizes = values.filter(Boolean).map(Math.abs).sort((a, b) => a - b);
    const typical = Math.log10(sizes[Math.floor(sizes.length / 2)] || 1);
    const digits = Math.max(0, Math.min(8, 3 - Math.floor(typical)));
    return new Intl.NumberFormat("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });
  });
  const shown = (column, i) => {
    const value = column.values[i];
    if (value === null || value === undefined) return "";
    if (!column.numeric) return value;
    return formats[columns.indexOf(column)].format(value);
  };
  const measured = (column, i) => `${shown(column, i)} ${column.unit}`.trim();

  // Filter and order

  const COMPARISON = /^([\w ]+?)\s*(<=|>=|!=|=|<|>)\s*(.*)$/;
  const compare = {
    "=": (a, b) => a === b, "!=": (a, b) => a !== b, "<": (a, b) => a < b,
    ">": (a, b) => a > b, "<=": (a, b) => a <= b, ">=": (a, b) => a >= b,
  };
  const test = (word) => {
    const parts = COMPARISON.exec(word);
    const column = parts && byName.get(parts[1].toLowerCase());
    if (!column) return (i) => texts[i].includes(word);
    const wanted = parts[3].toLowerCase(), figure = Number(parts[3]);
    const asNumber = parts[3] !== "" && !Number.isNaN(figure);
    return (i) => {
      const value = column.values[i];
      if (value === null) return parts[2] === "!=" || (parts[2] === "=" && wanted === "n/a");
      if (asNumber && !Number.isNaN(Number(value))) return compare[parts[2]](Number(value), figure);
      return compare[parts[2]](String(value).toLowerCase(), wanted);
    };
  };
  const filter = () => {
    const tests = byId("query").value.toLowerCase().split(/\s+/).filter(Boolean).map(test);
    if (byId("only-outliers").checked) tests.push((i) => outlying.has(i));
    if (byId("only-warned").checked) tests.push((i) => study.warned[i] === 1);
    const variant = byId("variant")?.value ?? "";
    if (variant !== "") tests.push((i) => study.variants[i] === Number(variant));
    order = [...study.names.keys()].filter((i) => tests.every((passes) => passes(i)));
    return tests.length > 0;
  };
  const sort = () => {
    const sign = state.down ? -1 : 1;
    if (state.sort < 0) {
      if (state.down) order.reverse();
      return;
    }
    const { values, numeric } = columns[state.sort];
    const differ = numeric ? (a, b) => a - b : collator.compare;
    order.sort((i, k) => {
      const a = values[i], b = values[k];
      if (a === null || b === null) return (a === null) - (b === null) || i - k;
      return sign * differ(a, b) || i - k;
    });
  };

  // Table

  const place = byId("table"), more = byId("more");
  const runCell = (i) => {
    const cell = make("th", { scope: "row" });
    const name = study.names[i];
    cell.append(study.pages[i] ? make("a", { href: study.pages[i] }, name) : name);
    cell.title = name;
    return cell;
  };
  const row = (i, chosen) => {
    const line = make("tr", i === state.marked ? { class: "marked" } : {}, runCell(i));
    for (const column of chosen) {
      const text = shown(column, i), out = column.out.has(i);
      const cell = make("td", {}, text);
      cell.className = `${column.numeric ? "figure" : ""}${out ? " out" : ""}`;
      if (out) cell.append(" ◆", make("span", { class: "unseen" }, " outlier"));
      if (text.length > 24) cell.title = text;
      line.append(cell);
    }
    line.dataset.run = i;
    return line;
  };
  const heading = (title, unit, numeric, number) => {
    const button = make("button", { type: "button" }, title);
    if (unit) button.append(make("small", {}, ` ${unit}`));
    const cell = make("th", { scope: "col" }, button);
    if (numeric) cell.className = "figure";
    if (state.sort === number) {
      cell.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      button.append(make("span", { "aria-hidden": "true" }, state.down ? " ▼" : " ▲"));
    }
    button.addEventListener("click", () => {
      state.down = state.sort === number && !state.down;
      state.sort = number;
      update();
      place.querySelectorAll("thead button")[[...cell.parentNode.children].indexOf(cell)]?.focus();
      byId("told").textContent = `Sorted by ${title}, ${state.down ? "descending" : "ascending"}`;
    });
    return cell;
  };
  const differs = columns.map(
    (column) => column.numeric || column.values.some((value) => value !== column.values[0]));
  const chosenColumns = () => columns.filter((column, k) => state.group === "*"
    || (column.groups.includes(state.group) && (state.group !== "main" || differs[k])));
  const drawTable = () => {
    const chosen = chosenColumns();
    const head = make("tr", {}, heading("Run", "", false, -1));
    for (const column of chosen) {
      head.append(heading(column.title, column.unit, column.numeric, columns.indexOf(column)));
    }
    const body = make("tbody");
    for (const i of order.slice(0, state.shown)) body.append(row(i, chosen));
    const table = make("table", { "aria-rowcount": order.length + 1 },
      make("caption", {}, "Runs and their figures; outliers are marked"), make("thead", {}, head), body);
    place.replaceChildren(table);
    offerMore();
  };
  const offerMore = () => {
    const left = order.length - state.shown;
    more.hidden = left <= 0;
    more.textContent = `Show more (${whole.format(Math.max(left, 0))} left)`;
  };
  const addRows = (count) => {
    const chosen = chosenColumns(), body = place.querySelector("tbody");
    for (const i of order.slice(state.shown, state.shown + count)) body.append(row(i, chosen));
    state.shown += count;
    offerMore();
  };
  more.addEventListener("click", () => addRows(PAGE));
  place.addEventListener("scroll", () => {
    const near = place.scrollTop + place.clientHeight > place.scrollHeight - 600;
    if (near && state.shown < order.length) addRows(PAGE);
  }, { passive: true });
  addEventListener("beforeprint", () => { if (n <= MANY) addRows(n); });

  // Plots: the dots are one path each; the points are read back from it

  const plots = [...document.querySelectorAll(".strip-box")].map((box, k) => {
    const svg = box.firstElementChild, dots = svg.querySelector(".dots");
    const figures = dots.getAttribute("d").match(/M[^h]+/g).map(
      (text) => text.slice(1).split(" ").map(Number));
    const spec = study.strips[k];
    const runs = spec.runs.length ? spec.runs : [...study.names.keys()];
    const column = columns[spec.column];
    const places = new Map(runs.map((run, dot) => [run, dot]));
    const sorted = [...runs.keys()].sort((a, b) => column.values[runs[a]] - column.values[runs[b]]);
    return { box, svg, dots, points: figures, runs, column, places, sorted, at: -1 };
  });
  const ring = (plot, run) => {
    plot.svg.querySelector(".ringed")?.remove();
    const dot = plot.places.get(run);
    if (dot === undefined) return;
    const circle = document.createElementNS(SVG, "circle");
    const [cx, cy] = plot.points[dot];
    for (const [key, value] of Object.entries({ cx, cy, r: 5.5, class: "ringed" })) {
      circle.setAttribute(key, value);
    }
    plot.svg.append(circle);
  };
  const mark = (run) => {
    if (run === state.marked) return;
    state.marked = run;
    for (const plot of plots) ring(plot, run);
    for (const marked of document.querySelectorAll("tr.marked, .sheet .marked")) {
      marked.classList.remove("marked");
    }
    if (run < 0) return;
    place.querySelector(`tr[data-run="${run}"]`)?.classList.add("marked");
    cells[run]?.classList.add("marked");
  };
  const tip = byId("tip");
  const showTip = (plot, dot, keep) => {
    const run = plot.runs[dot], name = study.names[run];
    mark(run);
    state.kept = keep;
    tip.className = keep ? "kept" : "";
    tip.replaceChildren(make("b", {}, name), measured(plot.column, run));
    if (keep && study.pages[run]) {
      tip.append(" · ", make("a", { href: study.pages[run] }, "open its page"));
    }
    tip.hidden = false;
    const frame = plot.svg.getBoundingClientRect(), [x, y] = plot.points[dot];
    const scale = frame.width / plot.svg.viewBox.baseVal.width;
    const left = frame.left + x * scale - tip.offsetWidth / 2;
    tip.style.left = `${Math.max(6, Math.min(left, innerWidth - tip.offsetWidth - 6))}px`;
    const above = frame.top + y * scale - tip.offsetHeight - 10;
    tip.style.top = `${above > 50 ? above : frame.top + y * scale + 14}px`;
  };
  const hideTip = () => {
    tip.hidden = true;
    state.kept = false;
    mark(-1);
  };
  const nearest = (plot, event) => {
    const frame = plot.svg.getBoundingClientRect();
    const scale = plot.svg.viewBox.baseVal.width / frame.width;
    const x = (event.clientX - frame.left) * scale, y = (event.clientY - frame.top) * scale;
    let best = -1, least = 18 * 18;
    plot.points.forEach(([a, b], dot) => {
      const distance = (a - x) ** 2 + (b - y) ** 2;
      if (distance < least && visible(plot.runs[dot])) { least = distance; best = dot; }
    });
    return best;
  };
  let passing = null;
  const visible = (run) => passing === null || passing.has(run);
  const speak = (plot, dot) => {
    const run = plot.runs[dot];
    plot.box.setAttribute("aria-valuenow", plot.column.values[run]);
    plot.box.setAttribute("aria-valuetext", `${study.names[run]}: ${measured(plot.column, run)}`);
  };
  for (const plot of plots) {
    const values = plot.sorted.map((dot) => plot.column.values[plot.runs[dot]]);
    const middle = plot.sorted[Math.floor(plot.sorted.length / 2)];
    const attributes = {
      tabindex: 0, role: "slider", "aria-label": plot.svg.getAttribute("aria-label"),
      "aria-valuemin": values[0], "aria-valuemax": values.at(-1),
    };
    for (const [key, value] of Object.entries(attributes)) plot.box.setAttribute(key, value);
    plot.svg.setAttribute("aria-hidden", "true");
    plot.svg.removeAttribute("role");
    plot.at = plot.sorted.indexOf(middle);
    speak(plot, middle);
    plot.box.addEventListener("pointermove", (event) => {
      if (state.kept) return;
      const dot = nearest(plot, event);
      if (dot < 0) hideTip(); else showTip(plot, dot, false);
    });
    plot.box.addEventListener("pointerleave", () => { if (!state.kept) hideTip(); });
    plot.box.addEventListener("click", (event) => {
      const dot = nearest(plot, event);
      if (dot < 0) hideTip(); else { plot.at = plot.sorted.indexOf(dot); showTip(plot, dot, true); }
    });
    plot.box.addEventListener("focus", () => {
      if (plot.box.matches(":focus-visible")) showTip(plot, plot.sorted[plot.at], false);
    });
    plot.box.addEventListener("blur", () => { if (!state.kept) hideTip(); });
    plot.box.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1,
        PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
      const last = plot.sorted.length - 1;
      if (event.key === "Enter") showTip(plot, plot.sorted[plot.at], true);
      else if (event.key in steps) {
        let at = Math.max(0, Math.min(last, plot.at + steps[event.key]));
        const towards = Math.sign(steps[event.key]);
        while (at > 0 && at < last && !visible(plot.runs[plot.sorted[at]])) at += towards;
        plot.at = at;
        speak(plot, plot.sorted[at]);
        showTip(plot, plot.sorted[at], false);
      } else return;
      event.preventDefault();
    });
  }
  addEventListener("keydown", (event) => { if (event.key === "Escape") hideTip(); });
  addEventListener("scroll", () => { if (!tip.hidden) hideTip(); }, { passive: true });
  document.addEventListener("click", (event) => {
    if (state.kept && !event.target.closest(".strip-box, #tip")) hideTip();
  });
  const drawPlots = () => {
    for (const plot of plots) {
      plot.svg.classList.toggle("filtered", passing !== null);
      plot.svg.querySelector(".matched")?.remove();
      if (passing === null) continue;
      const path = document.createElementNS(SVG, "path");
      const there = plot.points.filter((_, dot) => passing.has(plot.runs[dot]));
      path.setAttribute("d", there.map(([x, y]) => `M${x} ${y}h0`).join(""));
      path.setAttribute("class", "matched");
      plot.svg.append(path);
    }
  };

  // Pictures

  const cells = [...document.querySelectorAll(".sheet li")];
  const drawSheet = () => cells.forEach((cell, i) => { cell.hidden = !visible(i); });

  const update = () => {
    const filtered = filter();
    sort();
    state.shown = PAGE;
    drawTable();
    return filtered;
  };
  const updateAll = () => {
    passing = update() ? new Set(order) : null;
    drawPlots();
    drawSheet();
    byId("found").textContent = passing
      ? `${whole.format(order.length)} of ${whole.format(n)} runs` : `${whole.format(n)} runs`;
  };
  let waiting = 0;
  byId("query").addEventListener("input", () => {
    clearTimeout(waiting);
    if (n > MANY) waiting = setTimeout(updateAll, 150); else updateAll();
  });
  for (const id of ["only-outliers", "only-warned", "variant"]) {
    byId(id)?.addEventListener("input", updateAll);
  }
  byId("group").addEventListener("input", (event) => {
    state.group = event.target.value;
    drawTable();
  });
  for (const hidden of document.querySelectorAll(".controls, .table-tools, .help")) {
    hidden.hidden = false;
  }
  updateAll();
})();
