// Every chart: how numbers are written, the reader's colours, a picture with the numbers behind it, a click to the texts.
"use strict";
(function () {
  const { make, sortable } = window.lerpbench;
  const data = JSON.parse(document.getElementById("data").textContent);
  const config = { responsive: true, displaylogo: false, displayModeBar: false };
  const drawn = new Map(); // figure -> what it shows

  // ------------------------------------------------------------------------------------------------- numbers
  // As in Python, where a tie goes to the even digit; a number is half way between two only if this product is odd.
  function fixed(size, digits) {
    const up = size.toFixed(digits), tie = (size * 2 ** (digits + 1)) % 2 === 1;
    return tie && Number(up.at(-1)) % 2 ? (size - 10 ** -digits / 4).toFixed(digits) : up;
  }
  function small(size) {
    const [digits, power] = size.toExponential(data.rule.figures - 1).split("e");
    return power < -4 ? `${Number(digits)}e-${String(-power).padStart(2, "0")}` : String(Number(size.toPrecision(data.rule.figures)));
  }
  function number(value) {
    if (value === null || value === undefined) return data.rule.none;
    const size = Math.abs(value), { decimals, minus } = data.rule, last = decimals.at(-1);
    const [, digits] = decimals.find(([least]) => size >= least) || last;
    const text = size > 0 && size < last[0] ? small(size) : fixed(size, digits).replace(/\B(?=(\d{3})+(?!\d))/g, ",");
    return (value < 0 ? minus : "") + text;
  }
  // Text for Plotly, which reads a few tags in labels.
  const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  const label = (place) => (typeof place === "number" ? data.places[place].label : place);
  // What a reader sees over a mark: the place, and of each metric its name, value, interval and n.
  const said = (place, ...metrics) =>
    [`<b>${plain(label(place))}</b>`, ...metrics.map(([title, value, interval, n]) => `${plain(title)} ${value} (${interval}; n ${n})`)].join("<br>");

  // ------------------------------------------------------------------------------------------------- pictures
  // "--s0" is that colour of the style sheet; "--s0:0.2" the same, faded.
  function painted(value, style) {
    if (Array.isArray(value)) return value.map((item) => painted(item, style));
    if (value && typeof value === "object") return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, style)]));
    const token = typeof value === "string" && /^(--[a-z]\w*)(?::([\d.]+))?$/.exec(value);
    if (!token) return value;
    const hex = style.getPropertyValue(token[1]).trim();
    return token[2] ? hex + Math.round(token[2] * 255).toString(16).padStart(2, "0") : hex;
  }
  function look(layout) { // of a page: as wide as its place, in the page's type
    const { width, height, ...kept } = layout;
    return { ...kept, paper_bgcolor: "rgba(0,0,0,0)", font: { ...kept.font, family: "system-ui, sans-serif", color: "--soft" },
      hoverlabel: { bgcolor: "--panel", bordercolor: "--line", font: { color: "--ink", size: 12 }, align: "left" } };
  }
  // picture: traces (`data`), `layout`, and the table's `head` and `rows()`; a row begins with its place.
  function draw(box, picture) {
    const canvas = box.querySelector(".canvas"), style = getComputedStyle(document.documentElement);
    if (!drawn.has(box)) prepare(box, canvas);
    drawn.set(box, picture);
    if (picture.data.length) {
      if (!canvas.data) canvas.replaceChildren();
      Plotly.react(canvas, painted(picture.data, style), painted(look(picture.layout), style), config);
      if (!canvas.dataset.bound && canvas.on) {
        canvas.dataset.bound = "1";
        canvas.on("plotly_click", (event) => {
          const place = [event.points[0].customdata].flat()[0];
          if (typeof place === "number") location.href = `completions.html#c=${encodeURIComponent(label(place))}`;
        });
      }
    } else {
      if (canvas.data) Plotly.purge(canvas);
      delete canvas.dataset.bound;
      canvas.replaceChildren(make("p", { class: "gone" }, "Nothing to draw for these prompts; the table has what is stored."));
    }
    fill(box);
  }
  function prepare(box, canvas) {
    const table = box.querySelector(".data"), save = make("button", { type: "button", class: "save" }, "Save as SVG");
    table.addEventListener("toggle", () => fill(box));
    table.before(save);
    save.addEventListener("click", () => { // as it is shown, on the page's ground
      if (!canvas.data) return;
      const ground = getComputedStyle(document.documentElement).getPropertyValue("--bg").trim(), { width, height } = canvas.getBoundingClientRect();
      Plotly.downloadImage({ data: canvas.data, layout: { ...canvas.layout, paper_bgcolor: ground } },
        { format: "svg", filename: ["lerpbench", box.dataset.figure, box.dataset.panel].filter(Boolean).join("-"), width: Math.round(width), height: Math.round(height) });
    });
  }
  // A cell is text, or text with what it sorts by and its title.
  function cell(value, first) {
    const [text, sort, title] = [value].flat();
    const known = { ...(first ? { scope: "row" } : {}), ...(sort === undefined ? {} : { "data-sort": sort ?? "" }), ...(title ? { title } : {}) };
    return make(first ? "th" : "td", known, text);
  }
  function fill(box) {
    if (!box.querySelector(".data").open) return;
    const { head, rows } = drawn.get(box);
    const heads = head.map((name, k) => make("th", { scope: "col", ...(k ? {} : { "data-kind": "text" }) }, name));
    const lines = rows().map(([place, ...cells]) => make("tr", {}, cell(label(place), true), ...cells.map((value) => cell(value, false))));
    const table = make("table", {}, make("thead", {}, make("tr", {}, ...heads)), make("tbody", {}, ...lines));
    if (lines.every((line) => [...line.cells].slice(1).every((found) => "sort" in found.dataset))) sortable(table);
    box.querySelector(".data .scroll").replaceChildren(table);
  }
  function start(redraw) { // now, and when the reader's theme changes
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
    redraw();
    named(location.hash)?.scrollIntoView();
  }
  function named(hash) { // the element of an address; null for one that is none of ours
    try { return document.getElementById(decodeURIComponent(hash.slice(1))); } catch { return null; }
  }
  window.lerpbench.charts = { data, number, plain, said, draw, start, named };
})();
