"use strict";
// Filter, toggles and sorting of the table; without scripts the whole table is there.
const table = document.getElementById("batchnorms");
if (table) {
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const controls = document.getElementById("controls");
  const text = document.getElementById("text");
  const direction = document.getElementById("direction");
  const verdicts = [...controls.querySelectorAll("[name=verdict]")];
  const words = rows.map((row) => row.textContent.toLowerCase());

  const filter = () => {
    const wanted = text.value.toLowerCase();
    const allowed = verdicts.filter((box) => box.checked).map((box) => box.value);
    let shown = 0;
    rows.forEach((row, index) => {
      row.hidden = !(words[index].includes(wanted) && allowed.includes(row.className)
        && (!direction.value || row.dataset.direction === direction.value));
      shown += row.hidden ? 0 : 1;
    });
    document.getElementById("shown").textContent = `${shown} of ${rows.length}`;
  };

  [...table.tHead.rows[0].cells].forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => row.cells[column].firstChild.textContent.trim();
      const compare = head.dataset.sort === "number"
        ? (a, b) => (Number.parseFloat(key(a)) || 0) - (Number.parseFloat(key(b)) || 0)
        : (a, b) => key(a).localeCompare(key(b), "en", { numeric: true });
      const order = [...rows].sort(compare);
      body.append(...(down ? order.reverse() : order));
    });
  });

  controls.addEventListener("input", filter);
  controls.addEventListener("submit", (event) => event.preventDefault());
  controls.hidden = false;
  filter();
}
