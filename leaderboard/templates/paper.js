// The paper's figures: which panels are shown, by the chosen prompts.
"use strict";
(function () {
  const { remember, charts: { data, said, draw, start } } = window.lerpbench;
  const choice = document.getElementById("prompts");

  function panel(box) {
    const sets = data.figures[box.dataset.figure], chosen = choice ? choice.value : "";
    return (sets[chosen] || sets[""])[box.dataset.panel];
  }
  // The words over a mark are the table's row of its place (customdata) and metric (meta).
  function spoken(trace, rows) {
    if (!trace.customdata) return trace;
    const one = (place) => {
      if (Array.isArray(place)) return place.map(one);
      const row = rows.get(`${place} ${trace.meta}`);
      return row ? said(place, row.slice(1)) : "";
    };
    return { ...trace, text: trace.customdata.map(one), hovertemplate: "%{text}<extra></extra>" };
  }
  function redraw() {
    for (const box of document.querySelectorAll("[data-figure]")) {
      const found = panel(box);
      box.hidden = !found;
      if (!found) continue;
      const rows = new Map(found.rows.map((row) => [`${row[0]} ${row[1]}`, row]));
      draw(box, { ...found, data: found.data.map((trace) => spoken(trace, rows)), rows: () => found.rows });
    }
  }
  if (choice) {
    const asked = new URLSearchParams(location.search).get("prompts");
    if ([...choice.options].some((option) => option.value === asked)) choice.value = asked;
    choice.addEventListener("change", () => { redraw(); remember(choice.value ? { prompts: choice.value } : {}); });
  }
  start(redraw);
})();
