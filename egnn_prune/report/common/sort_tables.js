"use strict";
// A click on a head sorts its table: up, down, as it was. Without scripts nothing changes.
const START = /^[[(]?([+\-\u2212]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][+\-]?\d+)?)\s?(?:([kMGT])B?(?![a-z]))?/;
const SCALE = { k: 1e3, M: 1e6, G: 1e9, T: 1e12 };
const MISSING = new Set(["", "n/a", "\u2013"]);
const textOf = (row, column) => row.cells[column].textContent.trim();
function numberOf(text) {
  const found = START.exec(text);
  if (!found) return NaN;
  return Number(found[1].replace(/,/g, "").replace("\u2212", "-")) * (SCALE[found[2]] || 1);
}
function compared(column, names) {
  const words = new Intl.Collator("en", { numeric: true });
  return (a, b) => {
    const [first, second] = [textOf(a, column), textOf(b, column)];
    return names ? words.compare(first, second) : numberOf(first) - numberOf(second);
  };
}
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const rows = [...body.rows].filter((row) => !row.classList.contains("total"));
  const total = [...body.rows].filter((row) => row.classList.contains("total"));
  const heads = [...table.tHead.rows[0].cells];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const before = head.getAttribute("aria-sort");
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      const known = rows.filter((row) => !MISSING.has(textOf(row, column)));
      const missing = rows.filter((row) => MISSING.has(textOf(row, column)));
      const names = known.some((row) => isNaN(numberOf(textOf(row, column))));
      let order = [...rows];
      if (before !== "descending") {
        const way = before === "ascending" ? -1 : 1;
        const compare = compared(column, names);
        order = [...known.sort((a, b) => way * compare(a, b)), ...missing];
        head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      }
      body.append(...order, ...total);
    });
  });
}
