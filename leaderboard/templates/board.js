// The board's own choices: prompts, scale, metric, methods shown; its figures are made of the columns in the page's JSON.
"use strict";
(function () {
  const { make, remember, charts: { data, number, plain, said, draw, start } } = window.lerpbench;
  const query = new URLSearchParams(location.search), first = Object.keys(data.metrics)[0];
  const own = ["prompts", "scale", "metric", "space", "hide"]; // what the address keeps for this script
  const state = {
    prompts: data.sets.includes(query.get("prompts")) ? query.get("prompts") : "",
    scale: query.get("scale") === "d" || (query.get("scale") === "kl" && data.divergence) ? query.get("scale") : "x",
    metric: data.metrics[query.get("metric")] ? query.get("metric") : first,
    space: query.get("space") || "",
    hidden: new Set((query.get("hide") || "").split(",").filter(Boolean)),
  };
  const byId = (id) => document.getElementById(id);
  const figures = Object.fromEntries(data.figures.map((figure) => [figure.id, figure]));
  const chosen = {}; // figure -> metric, where a figure offers several
  const within = (series) => !state.space || series.spaces.includes(state.space);
  const shown = (series) => within(series) && !state.hidden.has(series.slug);
  const position = (i) => (state.scale === "d" ? data.places[i].d : state.scale === "kl" ? root(i) : data.places[i].x[0]);
  const named = (metric) => plain(data.metrics[metric].unit ? `${data.metrics[metric].title} (${data.metrics[metric].unit})` : data.metrics[metric].title);

  // ------------------------------------------------------------------------------------------------- numbers
  // The columns of a metric for the chosen prompts; a metric that is not split by prompts answers for all of them.
  function columns(metric) {
    const sets = data.values[metric] || {};
    const set = sets[state.prompts] ? state.prompts : sets[""] ? "" : Object.keys(sets)[0];
    return set === undefined ? { set: "", v: [], lo: [], hi: [], n: [], N: [] } : { set, ...sets[set] };
  }
  const of = (column, i) => (Array.isArray(column) ? column[i] ?? null : column);
  const known = (c) => (i) => typeof c.v[i] === "number";
  // The divergence from the base by its root, which a step from the base changes evenly.
  const root = (i) => Math.sqrt(Math.max(columns(data.divergence.metric).v[i], 0));
  const standing = (i) => state.scale !== "kl" || known(columns(data.divergence.metric))(i);
  // Value, interval and n as cells of the table; null where nothing was measured.
  function cells(c, i) {
    const n = of(c.n, i), N = of(c.N, i), why = c.why && c.why[i];
    if (n === null) return null;
    const value = known(c)(i) || !why ? number(c.v[i]) : `${number(null)} (${why})`;
    const interval = of(c.lo, i) === null ? number(null) : `${number(c.lo[i])} to ${number(c.hi[i])}`;
    return [[value, c.v[i], why], [interval, c.lo[i]], [n === N ? String(n) : `${n}/${N}`, n]];
  }
  const words = (i, ...metrics) => said(i, ...metrics.map((m) => [data.metrics[m].title, ...cells(columns(m), i).map(([text]) => text)]));
  function table(metrics) {
    const found = metrics.map(columns);
    const head = metrics.flatMap((m, k) => [data.metrics[m].title + (found[k].set ? `, ${found[k].set} prompts` : ""), "95 % interval", "n"]);
    const none = [[number(null), ""], [number(null), ""], [number(null), ""]];
    const rows = () => data.series.flatMap((s) => s.places).map((i) => [i, found.map((c) => cells(c, i))])
      .filter(([, all]) => all.some((one) => one !== null)).map(([i, all]) => [i, ...all.flatMap((one) => one || none)]);
    return { head: ["Setting", ...head], rows };
  }

  // ------------------------------------------------------------------------------------------------- figures
  const page = (x, y) => ({ ...data.layout, xaxis: { ...data.layout.xaxis, ...x, title: { ...data.layout.xaxis.title, text: x.title } },
    yaxis: { ...data.layout.yaxis, ...y, title: { ...data.layout.yaxis.title, text: y.title } } });
  const error = (c, order, more) => ({ type: "data", symmetric: false, array: order.map((i) => c.hi[i] - c.v[i]), arrayminus: order.map((i) => c.v[i] - c.lo[i]), ...more });
  const over = (order, ...metrics) => ({ customdata: order, text: order.map((i) => words(i, ...metrics)), hovertemplate: "%{text}<extra></extra>" });

  function curve(metric, series) {
    const c = columns(metric), order = series.places.filter(known(c)).filter(standing); // by the swept parameter
    const line = { x: order.map(position), y: order.map((i) => c.v[i]), mode: "lines+markers", ...series.style, ...over(order, metric) };
    const framed = order.filter((i) => c.lo[i] !== null), there = framed.map(position);
    const band = { x: [...there, ...there.slice().reverse()], y: [...framed.map((i) => c.lo[i]), ...framed.map((i) => c.hi[i]).reverse()],
      fill: "toself", fillcolor: `${series.style.line.color}:${data.band}`, line: { width: 0 }, mode: "lines", hoverinfo: "skip" };
    return order.length ? (framed.length > 1 ? [band, line] : [line]) : [];
  }
  function reference(metric, series, span) { // a single model: a mark by distance, else a line across
    const c = columns(metric), [i] = series.places, { color } = series.style.line;
    if (!known(c)(i) || !standing(i)) return [];
    const mark = { x: [position(i)], y: [c.v[i]], mode: "markers", marker: { ...series.style.marker, size: 9 }, ...over([i], metric),
      error_y: c.lo[i] === null ? undefined : error(c, [i], { color, thickness: 1.2, width: 3 }) };
    const line = { x: span, y: [c.v[i], c.v[i]], mode: "lines", line: { color, width: 1.3, dash: "dot" }, ...over([i, i], metric) };
    return [state.scale === "x" ? line : mark];
  }
  function curves(metric) {
    const lines = data.series.filter((s) => s.kind === "curve"), xs = lines.flatMap((s) => s.places.map(position));
    const span = xs.length ? [Math.min(...xs), Math.max(...xs)] : [0, 1];
    const points = data.series.filter((s) => s.kind === "point" && shown(s)).flatMap((s) => reference(metric, s, span));
    const x = state.scale === "d" ? { title: "distance along θ⁺ − θ⁻" } : state.scale === "kl" ? { title: named(data.divergence.metric), ...data.divergence.axis }
      : { title: plain([...new Set(lines.map((s) => s.axis))].join(" or ")) };
    return { data: [...points, ...lines.filter(shown).flatMap((s) => curve(metric, s))],
      layout: page(x, { title: named(metric), ...data.axes[metric][columns(metric).set] }) };
  }
  function frontier(price) {
    const cost = columns(price), control = columns(data.control), moved = price !== data.cost, x = (i) => (moved ? root(i) : cost.v[i]);
    const traces = data.series.filter(shown).map((series) => {
      const order = series.places.filter((i) => known(cost)(i) && known(control)(i)), { line, marker } = series.style;
      const plane = series.kind === "plane", whisker = { color: `${line.color}:0.45`, thickness: 1, width: 0, visible: !plane };
      return { x: order.map(x), y: order.map((i) => control.v[i]), mode: series.kind === "curve" ? "lines+markers" : "markers",
        line, opacity: plane ? 0.55 : 1, marker: { ...marker, size: plane ? 6 : series.kind === "point" ? 11 : 8 },
        error_x: moved ? undefined : error(cost, order, whisker), error_y: error(control, order, whisker), ...over(order, data.control, price) };
    });
    const across = moved ? { title: named(price), ...data.divergence.axis } : { title: `${named(price)}, logarithmic`, ...data.prices[cost.set] };
    const made = page(across, { title: named(data.control) }), limit = moved ? null : data.limit[state.prompts];
    const shapes = limit ? [{ type: "line", x0: limit, x1: limit, yref: "paper", y0: 0, y1: 1, line: { color: "--soft", width: 1.2, dash: "dot" } }] : [];
    return { data: traces.filter((trace) => trace.x.length), layout: { ...made, shapes } };
  }

  // ------------------------------------------------------------------------------------------------- the page
  function show(box) {
    const id = box.dataset.figure, figure = figures[id];
    if (id === "any") about();
    const metrics = id === "any" ? [state.metric] : figure.kind === "curves" ? [chosen[id] || figure.metrics[0]] : figure.metrics;
    draw(box, { ...(id !== "any" && figure.kind === "frontier" ? frontier(figure.metrics[1]) : curves(metrics[0])), ...table(metrics) });
  }
  function about() {
    const info = data.metrics[state.metric], better = { higher: "Higher is better.", lower: "Lower is better." }[info.direction] || "";
    byId("about").textContent = [state.metric, info.about, better].filter(Boolean).join(". ").replace(/\.\. /g, ". ");
  }
  function redraw() {
    document.querySelectorAll("[data-set]").forEach((box) => { box.hidden = box.dataset.set !== state.prompts; });
    document.querySelectorAll("[data-space]").forEach((row) => { row.hidden = state.space !== "" && !row.dataset.space.split(" ").includes(state.space); });
    document.querySelectorAll("[data-figure]").forEach(show);
    const others = [...new URLSearchParams(location.search)].filter(([key]) => !own.includes(key));
    remember({ ...Object.fromEntries(others), ...(state.space && { space: state.space }), ...(state.prompts && { prompts: state.prompts }), ...(state.scale !== "x" && { scale: state.scale }),
      ...(state.metric !== first && { metric: state.metric }), ...(state.hidden.size && { hide: [...state.hidden].join(",") }) });
  }
  function swatch(series) {
    const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg"), { color, dash } = series.style.line;
    for (const [name, value] of Object.entries({ width: 22, height: 12, viewBox: "0 0 22 12", "aria-hidden": "true" })) svg.setAttribute(name, value);
    const line = document.createElementNS(svg.namespaceURI, "path"), curved = series.kind === "curve";
    line.setAttribute("d", curved ? "M0 6H22" : "M8 6H14");
    line.setAttribute("style", `stroke: var(${color}); stroke-width: ${curved ? 2 : 6}; stroke-dasharray: ${curved && dash !== "solid" ? dash : "none"}`);
    svg.append(line);
    return svg;
  }
  for (const series of data.series) {
    const button = make("button", { type: "button", "aria-pressed": String(!state.hidden.has(series.slug)), "data-space": series.spaces.join(" ") }, swatch(series), series.name);
    button.addEventListener("click", () => {
      state.hidden[state.hidden.has(series.slug) ? "delete" : "add"](series.slug);
      button.setAttribute("aria-pressed", String(!state.hidden.has(series.slug)));
      redraw();
    });
    byId("legend").append(button);
  }
  for (const name of ["prompts", "scale", "metric", "space"].filter(byId)) {
    if (![...byId(name).options].some(({ value }) => value === state[name])) state[name] = byId(name).value;
    byId(name).value = state[name];
    byId(name).addEventListener("change", (event) => { state[name] = event.target.value; redraw(); });
  }
  for (const select of document.querySelectorAll("[data-metric]")) {
    const box = select.closest("[data-figure]");
    select.addEventListener("change", () => { chosen[box.dataset.figure] = select.value; show(box); });
  }
  start(redraw);
})();
