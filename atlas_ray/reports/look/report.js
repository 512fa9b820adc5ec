"use strict";

// Tables that sort: a click on a column's name, again for the other way round.
for (const table of document.querySelectorAll("table")) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  if (body.rows.length < 2) continue;
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const numbers = head.classList.contains("number");
      const before = head.getAttribute("aria-sort") || (numbers ? "ascending" : "descending");
      const down = before === "ascending"; // numbers begin with the largest, names with A
      for (const other of heads) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const cell = row.cells[column];
        return numbers ? Number(cell.dataset.value ?? NaN) : cell.textContent;
      };
      const order = (one, other) => {
        const [a, b] = [value(one), value(other)];
        if (!numbers) return (down ? -1 : 1) * a.localeCompare(b);
        if (isNaN(a) || isNaN(b)) return isNaN(a) - isNaN(b); // what is not known stands last
        return (down ? -1 : 1) * (a - b);
      };
      body.append(...[...body.rows].sort(order));
    });
  });
}
