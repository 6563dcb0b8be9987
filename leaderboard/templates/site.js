// Every page: sortable tables.  A header becomes a button; rows without a value stay last in both directions.
"use strict";
(function () {
  function key(row, column, text) {
    const raw = row.cells[column].dataset.sort ?? row.cells[column].textContent.trim();
    if (raw === "") return null;
    return text ? raw.toLowerCase() : Number(raw);
  }
  function sort(table, column, descending, text) {
    const body = table.tBodies[0];
    const rows = Array.from(body.rows, (row) => [key(row, column, text), row]);
    rows.sort(([a], [b]) => {
      if (a === null || b === null) return (a === null) - (b === null);
      return (a < b ? -1 : a > b ? 1 : 0) * (descending ? -1 : 1);
    });
    body.append(...rows.map(([, row]) => row));
  }
  function sortable(table) {
    const heads = Array.from(table.tHead.rows[0].cells);
    heads.forEach((head, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const text = head.dataset.kind === "text";
        const now = head.getAttribute("aria-sort");
        const descending = now ? now === "ascending" : !text;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", descending ? "descending" : "ascending");
        sort(table, column, descending, text);
      });
    });
  }
  document.querySelectorAll("table.sortable").forEach(sortable);
  window.lerpbench = { sortable };
})();
