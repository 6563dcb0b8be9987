// Draws the board's figures from the JSON in the page; numbers come from there, colours from the style sheet.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "cross", "x", "star", "triangle-down", "pentagon", "hexagon"];
  const DASHES = ["solid", "dash", "dashdot", "dot", "longdash", "longdashdot"];
  const query = new URLSearchParams(location.search);
  const state = {
    prompts: data.sets.includes(query.get("prompts")) ? query.get("prompts") : "",
    scale: query.get("scale") === "d" ? "d" : "x",
    metric: data.metrics[query.get("metric")] ? query.get("metric") : Object.keys(data.metrics)[0],
    hidden: new Set((query.get("hide") || "").split(",").filter(Boolean)),
  };
  const byId = (id) => document.getElementById(id);
  const figures = Object.fromEntries(data.figures.map((figure) => [figure.id, figure]));
  const chosen = {}; // figure -> metric, where a figure offers several

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }

  // ------------------------------------------------------------------------------------------------- numbers
  function number(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    const digits = size === 0 ? 0 : size >= 1000 ? 0 : size >= 10 ? 1 : size >= 2 ? 2 : size >= 0.1 ? 3 : size >= 1e-4 ? 5 : 7;
    return value.toFixed(digits).replace("-", "−");
  }
  // The columns of a metric for the chosen prompts; a metric that is not split by prompts answers for all of them.
  function columns(metric) {
    const sets = data.values[metric] || {};
    const set = sets[state.prompts] ? state.prompts : sets[""] ? "" : Object.keys(sets)[0];
    return set === undefined ? null : { set, ...sets[set] };
  }
  const of = (column, i) => (Array.isArray(column) ? column[i] : column);
  function estimate(c, i) {
    if (c === null || of(c.n, i) === null) return null;
    return { v: c.v[i], lo: c.lo[i], hi: c.hi[i], n: of(c.n, i), N: of(c.N, i), why: c.why && c.why[i] };
  }
  function spoken(e) {
    if (e === null) return "not measured";
    if (e.v === null) return `no value: ${e.why || "not scored"} (n ${e.n}/${e.N})`;
    const interval = e.lo === null ? "" : ` [${number(e.lo)}, ${number(e.hi)}]`;
    return `${number(e.v)}${interval} (n ${e.n === e.N ? e.n : e.n + "/" + e.N})`;
  }
  // Text for Plotly, which reads a few tags in labels.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const position = (i) => (state.scale === "d" ? data.places[i].d : data.places[i].x[0]);
  const shown = (series) => !state.hidden.has(series.slug);

  // ------------------------------------------------------------------------------------------------- look
  function theme() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    return { ink: get("--ink"), soft: get("--soft"), line: get("--line"), bg: get("--bg"), panel: get("--panel"),
      series: Array.from({ length: 10 }, (_, k) => get(`--s${k}`)) };
  }
  const faded = (hex, alpha) => hex + Math.round(alpha * 255).toString(16).padStart(2, "0");
  function layout(t, x, y) {
    const axis = { gridcolor: t.line, zeroline: false, linecolor: t.line, automargin: true, ticks: "", fixedrange: false };
    return {
      font: { family: "system-ui, sans-serif", size: 12, color: t.soft },
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false, dragmode: false,
      margin: { l: 52, r: 14, t: 10, b: 46 }, hovermode: "closest",
      hoverlabel: { bgcolor: t.panel, bordercolor: t.line, font: { color: t.ink, size: 12 }, align: "left" },
      xaxis: { ...axis, ...x, title: { text: x.title, standoff: 10 } },
      yaxis: { ...axis, ...y, title: y.title ? { text: y.title, standoff: 8 } : undefined },
      shapes: [], annotations: [],
    };
  }
  const config = { responsive: true, displaylogo: false, displayModeBar: false };

  // ------------------------------------------------------------------------------------------------- figures
  function curve(metric, t, series) {
    const c = columns(metric);
    const order = series.places.filter((i) => c && c.v[i] !== null && c.v[i] !== undefined);
    order.sort((a, b) => position(a) - position(b));
    const xs = order.map(position), color = t.series[series.slot % 10];
    const line = { x: xs, y: order.map((i) => c.v[i]), mode: "lines+markers", name: plain(series.name),
      line: { color, width: 2, dash: DASHES[series.slot % DASHES.length] },
      marker: { color, size: 7, symbol: SYMBOLS[series.slot % 10] }, customdata: order,
      text: order.map((i) => `<b>${plain(data.places[i].label)}</b><br>${plain(data.metrics[metric].title)} ${spoken(estimate(c, i))}`),
      hovertemplate: "%{text}<extra></extra>" };
    const framed = order.filter((i) => c.lo[i] !== null);
    const band = { x: [...framed.map(position), ...framed.map(position).reverse()],
      y: [...framed.map((i) => c.lo[i]), ...framed.map((i) => c.hi[i]).reverse()],
      fill: "toself", fillcolor: faded(color, 0.16), line: { width: 0 }, mode: "lines", hoverinfo: "skip" };
    return framed.length > 1 ? [band, line] : [line];
  }
  function reference(metric, t, series, span) {
    const c = columns(metric), i = series.places[0];
    if (!c || c.v[i] === null || c.v[i] === undefined) return [];
    const color = t.series[series.slot % 10];
    const text = `<b>${plain(data.places[i].label)}</b><br>${plain(data.metrics[metric].title)} ${spoken(estimate(c, i))}`;
    if (state.scale === "d") {
      return [{ x: [position(i)], y: [c.v[i]], mode: "markers", marker: { color, size: 9, symbol: SYMBOLS[series.slot % 10] },
        customdata: [i], text: [text], hovertemplate: "%{text}<extra></extra>",
        error_y: c.lo[i] === null ? undefined : { type: "data", symmetric: false, array: [c.hi[i] - c.v[i]], arrayminus: [c.v[i] - c.lo[i]], color, thickness: 1.2, width: 3 } }];
    }
    return [{ x: span, y: [c.v[i], c.v[i]], mode: "lines", line: { color, width: 1.3, dash: "dot" }, customdata: [i, i],
      text: [text, text], hovertemplate: "%{text}<extra></extra>" }];
  }
  function curves(metric, t) {
    const lines = data.series.filter((s) => s.kind === "curve" && shown(s));
    const points = data.series.filter((s) => s.kind === "point" && shown(s));
    const xs = data.series.filter((s) => s.kind === "curve").flatMap((s) => s.places.map(position));
    const span = xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    const traces = [...points.flatMap((s) => reference(metric, t, s, span)), ...lines.flatMap((s) => curve(metric, t, s))];
    const axes = [...new Set(data.series.filter((s) => s.kind === "curve").map((s) => s.axis))].join(" or ");
    const info = data.metrics[metric];
    const y = { title: info.unit ? `${plain(info.title)} (${plain(info.unit)})` : plain(info.title), ...stretch(metric) };
    return [traces, layout(t, { title: state.scale === "d" ? "distance along θ⁺ − θ⁻" : plain(axes) }, y)];
  }
  function stretch(metric) { // a logarithmic axis where values span more than a factor of 20
    const c = columns(metric);
    const known = data.series.filter((s) => s.kind !== "plane").flatMap((s) => s.places.map((i) => c && c.v[i])).filter((v) => typeof v === "number");
    return known.length && Math.min(...known) > 0 && Math.max(...known) / Math.min(...known) > 20 ? logarithmic(known) : {};
  }
  function logarithmic(values) { // ticks at 1, 2, 5, or closer where the values span less than a decade
    const lo = Math.min(...values), hi = Math.max(...values), span = Math.log10(hi / lo);
    const steps = span < 0.8 ? [1, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8] : span < 2 ? [1, 2, 3, 5, 7] : span < 3.5 ? [1, 2, 5] : [1];
    const tickvals = [];
    for (let k = Math.floor(Math.log10(lo)) - 1; k <= Math.log10(hi) + 1; k++) for (const step of steps) tickvals.push(Number((step * 10 ** k).toPrecision(3)));
    return { type: "log", tickmode: "array", tickvals, ticktext: tickvals.map((v) => String(Number(v.toPrecision(3)))) };
  }
  function frontier(figure, t) {
    const cost = columns(data.cost), control = columns(data.control), traces = [];
    for (const series of data.series.filter(shown)) {
      const order = series.places.filter((i) => cost && control && typeof cost.v[i] === "number" && typeof control.v[i] === "number");
      const color = t.series[series.slot % 10], plane = series.kind === "plane";
      const error = (c) => ({ type: "data", symmetric: false, array: order.map((i) => c.hi[i] - c.v[i]),
        arrayminus: order.map((i) => c.v[i] - c.lo[i]), color: faded(color, 0.45), thickness: 1, width: 0, visible: !plane });
      traces.push({ x: order.map((i) => cost.v[i]), y: order.map((i) => control.v[i]), customdata: order,
        mode: series.kind === "curve" ? "lines+markers" : "markers", name: plain(series.name),
        line: { color, width: 1.6, dash: DASHES[series.slot % DASHES.length] }, opacity: plane ? 0.55 : 1,
        marker: { color, size: plane ? 6 : series.kind === "point" ? 11 : 8, symbol: SYMBOLS[series.slot % 10] },
        error_x: error(cost), error_y: error(control), hovertemplate: "%{text}<extra></extra>",
        text: order.map((i) => `<b>${plain(data.places[i].label)}</b><br>${data.control} ${spoken(estimate(control, i))}<br>${data.cost} ${spoken(estimate(cost, i))}`) });
    }
    const made = layout(t, { title: "perplexity (logarithmic)", ...logarithmic(traces.flatMap((trace) => trace.x).filter((v) => v > 0)) }, { title: data.metrics[data.control].title });
    const limit = data.limit[state.prompts];
    if (limit) made.shapes.push({ type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1, line: { color: t.soft, width: 1.2, dash: "dot" } });
    return [traces, made];
  }

  // ------------------------------------------------------------------------------------------------- tables
  function metricsOf(box) {
    const id = box.dataset.figure;
    if (id === "any") return [state.metric];
    return figures[id].kind === "curves" ? [chosen[id] || figures[id].metrics[0]] : figures[id].metrics;
  }
  function fill(box) {
    const target = box.querySelector(".data .scroll");
    const metrics = metricsOf(box), columnsOf = metrics.map(columns);
    const head = make("tr", {}, make("th", { scope: "col", "data-kind": "text" }, "Setting"));
    metrics.forEach((m, k) => {
      const where = columnsOf[k] && columnsOf[k].set ? `, ${columnsOf[k].set} prompts` : "";
      head.append(make("th", { scope: "col" }, data.metrics[m].title + where), make("th", { scope: "col" }, "95 % interval"), make("th", { scope: "col" }, "n"));
    });
    const body = make("tbody");
    for (const i of data.series.flatMap((s) => s.places)) {
      const found = columnsOf.map((c) => estimate(c, i));
      if (found.every((e) => e === null)) continue;
      const row = make("tr", {}, make("th", { scope: "row" }, data.places[i].label));
      for (const e of found) {
        row.append(make("td", { "data-sort": e && e.v !== null ? e.v : "", title: (e && e.why) || "" }, e && e.v === null && e.why ? `– (${e.why})` : number(e && e.v)),
          make("td", { "data-sort": e && e.lo !== null ? e.lo : "" }, e && e.lo !== null ? `${number(e.lo)} to ${number(e.hi)}` : "–"),
          make("td", { "data-sort": e ? e.n : "" }, e ? (e.n === e.N ? String(e.n) : `${e.n}/${e.N}`) : "–"));
      }
      body.append(row);
    }
    const table = make("table", {}, make("thead", {}, head), body);
    window.lerpbench.sortable(table);
    target.replaceChildren(table);
  }

  // ------------------------------------------------------------------------------------------------- the page
  function picture(box, t) {
    const id = box.dataset.figure, figure = figures[id];
    if (id === "any") return curves(state.metric, t);
    if (figure.kind === "curves") return curves(metricsOf(box)[0], t);
    return frontier(figure, t);
  }
  function draw(box, t) {
    const canvas = box.querySelector(".canvas"), [traces, made] = picture(box, t);
    if (box.dataset.figure === "any") about();
    const any = traces.some((trace) => trace.mode && trace.x.length);
    if (!any) {
      if (canvas.data) Plotly.purge(canvas);
      canvas.replaceChildren(make("p", { class: "gone" }, "Nothing to draw along a line for these prompts; the table has what is stored."));
    } else {
      if (!canvas.data) canvas.replaceChildren();
      Plotly.react(canvas, traces, made, config);
      if (!canvas.dataset.bound && canvas.on) {
        canvas.dataset.bound = "1";
        canvas.on("plotly_click", (event) => {
          const i = [event.points[0].customdata].flat()[0];
          if (i !== undefined) location.href = `completions.html#c=${encodeURIComponent(data.places[i].label)}`;
        });
      }
    }
    if (box.querySelector(".data").open) fill(box);
  }
  function about() {
    const info = data.metrics[state.metric], better = { higher: "Higher is better.", lower: "Lower is better." }[info.direction] || "";
    byId("about").textContent = [state.metric, info.about, better].filter(Boolean).join(". ").replace(/\.\. /g, ". ");
  }
  function redraw() {
    const t = theme();
    document.querySelectorAll("[data-set]").forEach((box) => { box.hidden = box.dataset.set !== state.prompts; });
    document.querySelectorAll("[data-figure]").forEach((box) => draw(box, t));
    remember();
  }
  function remember() {
    const kept = new URLSearchParams();
    if (state.prompts) kept.set("prompts", state.prompts);
    if (state.scale !== "x") kept.set("scale", state.scale);
    if (state.metric !== Object.keys(data.metrics)[0]) kept.set("metric", state.metric);
    if (state.hidden.size) kept.set("hide", [...state.hidden].join(","));
    const text = kept.toString();
    try { history.replaceState(null, "", `${location.pathname}${text ? "?" + text : ""}${location.hash}`); } catch { /* a browser that forbids this on file:// loses the permalink, no more */ }
  }
  function legend() {
    for (const series of data.series) {
      const button = make("button", { type: "button", "aria-pressed": String(shown(series)) }, swatch(series), series.name);
      button.addEventListener("click", () => {
        state.hidden[shown(series) ? "add" : "delete"](series.slug);
        button.setAttribute("aria-pressed", String(shown(series)));
        redraw();
      });
      byId("legend").append(button);
    }
  }
  function swatch(series) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
    const dash = { solid: "", dash: "5 3", dashdot: "5 2 1 2", dot: "1.5 3", longdash: "8 3", longdashdot: "8 2 1 2" }[DASHES[series.slot % DASHES.length]];
    for (const [name, value] of Object.entries({ width: 22, height: 12, viewBox: "0 0 22 12", "aria-hidden": "true" })) svg.setAttribute(name, value);
    const line = document.createElementNS(svg.namespaceURI, "path");
    line.setAttribute("d", series.kind === "curve" ? "M0 6H22" : "M8 6H14");
    line.setAttribute("style", `stroke: var(--s${series.slot % 10}); stroke-width: ${series.kind === "curve" ? 2 : 6}; stroke-dasharray: ${series.kind === "curve" ? dash : ""}`);
    svg.append(line);
    return svg;
  }
  function start() {
    legend();
    byId("prompts").value = state.prompts;
    byId("scale").value = state.scale;
    byId("metric").value = state.metric;
    byId("prompts").addEventListener("change", (e) => { state.prompts = e.target.value; redraw(); });
    byId("scale").addEventListener("change", (e) => { state.scale = e.target.value; redraw(); });
    byId("metric").addEventListener("change", (e) => { state.metric = e.target.value; draw(byId("any"), theme()); remember(); });
    document.querySelectorAll("[data-figure]").forEach((box) => {
      const select = box.querySelector("[data-metric]");
      if (select) select.addEventListener("change", () => { chosen[box.dataset.figure] = select.value; draw(box, theme()); });
      box.querySelector(".data").addEventListener("toggle", (e) => { if (e.target.open) fill(box); });
    });
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    redraw();
    if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
  }
  start();
})();
