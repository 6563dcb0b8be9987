// Every page: sortable tables, whose headers become buttons and whose rows without a value stay last in both directions;
// and choosers, which show one part of a page.
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
  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
  }
  function remember(choices, hash = location.hash) { // a browser that forbids this on file:// loses the permalink, no more
    const text = new URLSearchParams(choices).toString();
    try { history.replaceState(null, "", `${location.pathname}${text ? "?" + text : ""}${hash}`); } catch { /* no permalink here */ }
  }
  // A block with data-choice is shown if, for every select[data-chooses=NAME], its data-NAME holds the chosen value (words
  // apart by spaces) or is absent; an empty value takes all.  The address remembers the choice.
  function choosers() {
    const selects = Array.from(document.querySelectorAll("select[data-chooses]"));
    const asked = new URLSearchParams(location.search);
    function show() {
      for (const block of document.querySelectorAll("[data-choice]")) {
        block.hidden = !selects.every(({ value, dataset: { chooses } }) =>
          value === "" || !(chooses in block.dataset) || block.dataset[chooses].split(" ").includes(value));
      }
      const none = document.querySelector("[data-none]");
      if (none) none.hidden = Array.from(document.querySelectorAll("[data-counts]")).some((block) => block.offsetParent !== null);
    }
    function keep() {
      const kept = new URLSearchParams(location.search);
      for (const { value, dataset } of selects) kept.set(dataset.chooses, value);
      remember(kept);
    }
    for (const select of selects) {
      const value = asked.get(select.dataset.chooses);
      if (Array.from(select.options, (option) => option.value).includes(value)) select.value = value;
      select.addEventListener("change", () => { show(); keep(); });
    }
    if (selects.length) show();
  }
  // A button with data-copies puts the text of that element on the clipboard, or marks it where that is forbidden.
  function copier(button) {
    button.addEventListener("click", async () => {
      const source = document.getElementById(button.dataset.copies);
      try { await navigator.clipboard.writeText(source.textContent); button.textContent = "Copied"; } catch {
        getSelection().selectAllChildren(source);
        button.textContent = document.execCommand("copy") ? "Copied" : "Marked: copy it";
      }
    });
  }
  document.querySelectorAll("[data-copies]").forEach(copier);
  document.querySelectorAll("table.sortable").forEach(sortable);
  choosers();
  window.lerpbench = { make, remember, sortable };
})();
