// Completions side by side.  Texts arrive as script files, one a method, and enter the page only as text.
"use strict";
(function () {
  const { make } = window.lerpbench;
  const data = JSON.parse(document.getElementById("data").textContent);
  const LIMIT = 200; // texts drawn in one column
  const loaded = {}; // file -> {generation: columns}
  const waiting = {}; // file -> promise
  const byId = (id) => document.getElementById(id);
  const state = { set: "", prompt: 0, columns: [], filter: "", from: null, to: null, sample: null };

  window.lerpbench.add = (file, texts) => { loaded[file] = texts; };
  function load(file) {
    waiting[file] ??= new Promise((done) => {
      const script = document.createElement("script");
      script.src = `texts/${encodeURIComponent(file)}.js`;
      script.onload = done;
      script.onerror = done;
      document.head.append(script);
    });
    return waiting[file];
  }

  // ------------------------------------------------------------------------------------------------- state
  const sets = [...new Set(data.prompts.map(([set]) => set))];
  const inSet = () => data.prompts.map((prompt, i) => [prompt, i]).filter(([[set]]) => !state.set || set === state.set);
  // A column shows one place, or (place null) every setting of a method; its name in the address is the place's or the method's.
  const at = (place) => ({ series: data.series.find((series) => series.places.includes(place)), place });
  const nameOf = ({ series, place }) => (place === null ? series.name : data.places[place].label);
  function columnOf(name) {
    const place = data.places.findIndex((one) => one.label === name), series = data.series.find((one) => one.name === name);
    return place >= 0 ? at(place) : series ? { series, place: null } : null;
  }
  const filtering = () => state.filter !== "" || state.from !== null || state.to !== null;
  const clamp = (text) => (text === null || text === "" || !Number.isFinite(Number(text)) ? null : Number(text));

  function usual() { // the ends of the first line, after the base
    const stored = (i) => data.places[i].file !== null;
    const line = data.series.find((series) => series.places.filter(stored).length > 1) || data.series[0];
    const ends = line.places.filter(stored);
    const places = [data.base, ends[0], ends.at(-1)].filter((i) => i !== null && i !== undefined && stored(i));
    return [...new Set(places)].map(at);
  }
  function read() {
    const hash = new URLSearchParams(location.hash.slice(1));
    state.set = sets.includes(hash.get("set")) ? hash.get("set") : "";
    const row = hash.get("row");
    const found = data.prompts.findIndex(([set, r]) => (!state.set || set === state.set) && String(r) === row);
    state.prompt = found >= 0 ? found : inSet()[0][1];
    const asked = hash.getAll("c").map(columnOf).filter((column) => column !== null);
    state.columns = asked.length ? asked : usual();
    state.filter = hash.get("q") || "";
    state.from = clamp(hash.get("from"));
    state.to = clamp(hash.get("to"));
    state.sample = hash.get("sample");
  }
  function link(extra = {}) {
    const hash = new URLSearchParams();
    const [set, row] = data.prompts[state.prompt];
    hash.set("set", extra.set ?? (state.set || set));
    hash.set("row", extra.row ?? row);
    for (const column of extra.columns ?? state.columns) hash.append("c", nameOf(column));
    if (!extra.columns) {
      if (state.filter) hash.set("q", state.filter);
      if (state.from !== null) hash.set("from", state.from);
      if (state.to !== null) hash.set("to", state.to);
    }
    if (extra.sample !== undefined) hash.set("sample", extra.sample);
    return "#" + hash;
  }
  const remember = () => window.lerpbench.remember(location.search, link(state.sample === null ? {} : { sample: state.sample }));

  // ------------------------------------------------------------------------------------------------- drawing
  function controls() {
    byId("set").replaceChildren(make("option", { value: "" }, "all"), ...sets.map((set) => make("option", { value: set }, set)));
    byId("set").value = state.set;
    byId("prompt").replaceChildren(...inSet().map(([[set, row, text], i]) => make("option", { value: i }, `${state.set ? "" : set + " "}${row}: ${text}`)));
    byId("prompt").value = state.prompt;
    byId("prompt").disabled = filtering();
    byId("filter").value = state.filter;
    if (byId("from")) { byId("from").value = state.from ?? ""; byId("to").value = state.to ?? ""; }
  }
  function matches(text, score) {
    if (state.filter && !text.toLowerCase().includes(state.filter.toLowerCase())) return false;
    if (state.from !== null && !(score !== null && score / 100 >= state.from)) return false;
    if (state.to !== null && !(score !== null && score / 100 <= state.to)) return false;
    return true;
  }
  function select(options, value, label, change) {
    const element = make("select", { "aria-label": label }, ...options.map(([v, text]) => make("option", { value: v }, text)));
    element.value = value;
    element.addEventListener("change", () => change(element.value));
    return element;
  }
  function column(shown, k) {
    const { series, place } = shown, box = make("section", { class: "column", "aria-label": nameOf(shown) });
    const method = select(data.series.map((s, n) => [n, s.name]), data.series.indexOf(series), `Method of column ${k + 1}`, (n) => {
      const next = data.series[n], several = next.places.length > 1;
      replace(k, place === null && several ? { series: next, place: null } : at(next.places[Math.floor((next.places.length - 1) / 2)]));
    });
    const settings = series.places.map((p) => [p, data.places[p].at]);
    if (settings.length > 1) settings.unshift(["", "every setting"]);
    const point = select(settings, place ?? "", `Setting of column ${k + 1}`, (p) => replace(k, p === "" ? { series, place: null } : at(Number(p))));
    const remove = make("button", { type: "button", "aria-label": `Remove column ${k + 1}` }, "×");
    remove.disabled = state.columns.length < 2;
    remove.addEventListener("click", () => { state.columns.splice(k, 1); draw(); });
    box.append(make("header", {}, method, point, remove), make("p", { class: "mean" }), make("div", { class: "texts" }));
    body(box, shown, k);
    return box;
  }
  function replace(k, shown) { state.columns[k] = shown; state.sample = null; draw(); }
  async function body(box, shown, k) {
    const target = box.querySelector(".texts"), places = shown.place === null ? shown.series.places : [shown.place];
    const needed = [...new Set(places.map((i) => data.places[i].file).filter((file) => file !== null))];
    if (!needed.length) { target.append(make("p", { class: "empty" }, "No completions stored for this setting.")); return; }
    if (needed.some((file) => !loaded[file])) { target.append(make("p", { class: "status" }, "Loading…")); await Promise.all(needed.map(load)); }
    const broken = needed.find((file) => !loaded[file]);
    if (broken) { target.replaceChildren(make("p", { class: "empty" }, `The file texts/${broken}.js cannot be read; copy the whole site folder.`)); return; }
    const [total, found] = matching(places);
    target.replaceChildren(...found.slice(0, LIMIT).map((c) => completion(c, shown, k)));
    if (!found.length) target.append(make("p", { class: "empty" }, total ? "None of the completions passes the filter." : "No completions stored for this prompt."));
    if (found.length > LIMIT) target.append(make("p", { class: "status" }, `The first ${LIMIT} are shown.`));
    const scores = found.map((c) => c.score).filter((s) => s !== null && s !== undefined);
    const mean = scores.length ? `, mean ${data.score} ${(scores.reduce((a, b) => a + b, 0) / scores.length / 100).toFixed(2)}` : "";
    box.querySelector(".mean").textContent = `${nameOf(shown)}: ${found.length} of ${total}${mean}.`;
    if (shown.place !== null && data.places[shown.place].about) box.querySelector(".mean").append(make("br"), data.places[shown.place].about);
    if (state.sample !== null) target.querySelector(".marked")?.scrollIntoView({ block: "nearest" });
  }
  function matching(places) { // how many completions there are for the chosen prompts, and those that pass the filters
    const prompts = filtering() ? inSet().map(([, p]) => p) : [state.prompt], found = [];
    let total = 0;
    for (const i of places) for (const p of prompts) for (let sample = 0; sample < data.samples; sample++) {
      const stored = loaded[data.places[i].file]?.[data.places[i].key], k = p * data.samples + sample, text = stored?.t[k];
      if (text === null || text === undefined) continue;
      total++;
      const score = stored.s ? stored.s[k] : null;
      if (matches(text, score)) found.push({ i, p, sample, text, score, n: stored.n[k], stopped: stored.f[k] === 1 });
    }
    return [total, found];
  }
  function completion(c, shown, k) {
    const [set, row, prompt] = data.prompts[c.p];
    const marked = k === 0 && state.sample !== null && String(c.sample) === state.sample && c.p === state.prompt;
    const note = make("small");
    if (shown.place === null) note.append(`${data.places[c.i].at} · `);
    if (c.score !== null && c.score !== undefined) note.append(meter(c.score), `${data.score} ${(c.score / 100).toFixed(2)} · `);
    const columns = [at(c.i), ...state.columns.filter((other) => other.place !== c.i && other !== shown)];
    note.append(`${c.n} tokens, ${c.stopped ? "ended" : "cut off"} · `, make("a", { href: link({ set, row, columns, sample: c.sample }) }, `${set} ${row}, sample ${c.sample}`));
    return make("p", { class: marked ? "text marked" : "text", ...(marked ? { "aria-current": "true" } : {}) }, make("q", {}, make("span", { class: "prompt" }, prompt), c.text), note);
  }
  function meter(score) {
    const bar = make("i");
    bar.style.width = `${score}%`;
    return make("span", { class: "meter", "aria-hidden": "true" }, bar);
  }
  function draw() {
    controls();
    byId("columns").replaceChildren(...state.columns.map(column));
    const listed = inSet(), at = listed.findIndex(([, i]) => i === state.prompt);
    byId("previous").disabled = filtering() || at <= 0;
    byId("next").disabled = filtering() || at >= listed.length - 1;
    byId("status").textContent = filtering() ? `Looking through all ${listed.length} prompts${state.set ? " of the set " + state.set : ""}.` : `Prompt ${at + 1} of ${listed.length}.`;
    remember();
  }
  function step(by) {
    const listed = inSet(), at = listed.findIndex(([, i]) => i === state.prompt);
    if (listed[at + by]) { state.prompt = listed[at + by][1]; state.sample = null; draw(); }
  }
  function start() {
    byId("set").addEventListener("change", (e) => { state.set = e.target.value; state.prompt = inSet()[0][1]; state.sample = null; draw(); });
    byId("prompt").addEventListener("change", (e) => { state.prompt = Number(e.target.value); state.sample = null; draw(); });
    byId("previous").addEventListener("click", () => step(-1));
    byId("next").addEventListener("click", () => step(1));
    byId("filter").addEventListener("input", (e) => { state.filter = e.target.value; draw(); });
    for (const name of ["from", "to"]) byId(name)?.addEventListener("input", (e) => { state[name] = clamp(e.target.value); draw(); });
    byId("add").addEventListener("click", () => { state.columns.push({ ...state.columns.at(-1) }); draw(); });
    addEventListener("hashchange", () => { read(); draw(); });
    read();
    draw();
  }
  start();
})();
