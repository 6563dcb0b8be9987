// Draws the panels in the page's JSON with the style sheet's colours, and fills the tables behind them.
"use strict";
(function () {
  const data = JSON.parse(document.getElementById("data").textContent);
  const choice = document.getElementById("prompts");
  const boxes = [...document.querySelectorAll("[data-figure]")];
  const config = { responsive: true, displaylogo: false, displayModeBar: false };

  function panel(box) {
    const sets = data.figures[box.dataset.figure], chosen = choice ? choice.value : "";
    return (sets[chosen] || sets[""])[box.dataset.panel];
  }
  // "--s0" is that colour of the style sheet; "--s0:0.2" the same, faded.
  function painted(value, style) {
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, style)]));
    const token = typeof value === "string" && /^(--[a-z]\w*)(?::([\d.]+))?$/.exec(value);
    if (!token) return value;
    const hex = style.getPropertyValue(token[1]).trim();
    return token[2] ? hex + Math.round(token[2] * 255).toString(16).padStart(2, "0") : hex;
  }
  // A place's label, or the word that a row without a place begins with.
  const named = (first) => (typeof first === "number" ? data.labels[first] : first);
  // What a reader sees over a mark: the row of its place (customdata) and metric (meta).
  function spoken(trace, rows) {
    if (!trace.customdata) return trace;
    const found = new Map(rows.map((row) => [`${row[0]} ${row[1]}`, row]));
    const one = (place) => {
      if (Array.isArray(place)) return place.map(one);
      const row = found.get(`${place} ${trace.meta}`);
      return row ? `<b>${plain(named(place))}</b><br>${plain(row[1])} ${row[2]} (${row[3]}; n ${row[4]})` : "";
    };
    return { ...trace, text: trace.customdata.map(one), hovertemplate: "%{text}<extra></extra>" };
  }
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  function draw(box) {
    const found = panel(box), canvas = box.querySelector(".canvas");
    box.hidden = !found;
    if (!found) return;
    const style = getComputedStyle(document.documentElement);
    const layout = painted(found.layout, style), ink = style.getPropertyValue("--ink").trim();
    delete layout.width;
    delete layout.height;
    layout.paper_bgcolor = "rgba(0,0,0,0)";
    layout.font = { ...layout.font, family: "system-ui, sans-serif", color: style.getPropertyValue("--soft").trim() };
    layout.hoverlabel = { bgcolor: style.getPropertyValue("--panel").trim(), bordercolor: style.getPropertyValue("--line").trim(), font: { color: ink, size: 12 }, align: "left" };
    Plotly.react(canvas, painted(found.data, style).map((trace) => spoken(trace, found.rows)), layout, config);
    if (box.querySelector(".data").open) fill(box);
  }
  function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  function fill(box) {
    const found = panel(box);
    const head = make("tr", {}, ...found.head.map((name) => make("th", { scope: "col" }, name)));
    const rows = found.rows.map((row) => make("tr", {}, make("th", { scope: "row" }, named(row[0])), ...row.slice(1).map((cell) => make("td", {}, cell))));
    box.querySelector(".data .scroll").replaceChildren(make("table", {}, make("thead", {}, head), make("tbody", {}, ...rows)));
  }
  function redraw() { boxes.forEach(draw); }

  if (choice) {
    const asked = new URLSearchParams(location.search).get("prompts");
    if ([...choice.options].some((option) => option.value === asked)) choice.value = asked;
    choice.addEventListener("change", () => {
      redraw();
      try { history.replaceState(null, "", `${location.pathname}${choice.value ? "?prompts=" + encodeURIComponent(choice.value) : ""}${location.hash}`); } catch { /* a browser that forbids this on file:// loses the permalink, no more */ }
    });
  }
  boxes.forEach((box) => box.querySelector(".data").addEventListener("toggle", (event) => { if (event.target.open) fill(box); }));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  redraw();
  if (location.hash) document.getElementById(decodeURIComponent(location.hash.slice(1)))?.scrollIntoView();
})();
