// Words beside the pointer, the curve that is pointed at before the others, tables that sort. Without it nothing is lost.
const tip = document.body.appendChild(Object.assign(document.createElement("div"), { id: "tip" }));
for (const part of document.querySelectorAll("svg .tip")) {
  const title = part.querySelector("title");
  const svg = part.closest("svg");
  const name = title.textContent.split("\n", 1)[0];
  part.setAttribute("aria-label", title.textContent);
  part.dataset.words = title.textContent;
  part.dataset.name = name;
  title.remove(); // the browser would show it a second time
  part.addEventListener("pointermove", (event) => {
    tip.textContent = part.dataset.words;
    tip.style.display = "block";
    tip.style.left = `${Math.min(event.clientX + 14, innerWidth - tip.offsetWidth - 8)}px`;
    tip.style.top = `${Math.min(event.clientY + 14, innerHeight - tip.offsetHeight - 8)}px`;
    svg.classList.add("pointed");
    for (const other of svg.querySelectorAll(".tip")) other.classList.toggle("same", other.dataset.name === name);
  });
  part.addEventListener("pointerleave", () => {
    tip.style.display = "none";
    svg.classList.remove("pointed");
  });
}
for (const table of document.querySelectorAll("table.sortable")) {
  for (const head of table.tHead.rows[0].cells) {
    head.addEventListener("click", () => {
      const up = head.dataset.up !== "yes";
      head.dataset.up = up ? "yes" : "no";
      const text = (row) => row.cells[head.cellIndex].textContent;
      const order = (a, b) => parseFloat(text(a)) - parseFloat(text(b)) || text(a).localeCompare(text(b));
      const rows = [...table.tBodies[0].rows].sort(order);
      table.tBodies[0].append(...(up ? rows : rows.reverse()));
    });
  }
}
