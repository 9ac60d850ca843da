// Clicks on the head of a column, points at a heat map, and notes what the page did.
"use strict";
const note = (name, value) => { document.documentElement.dataset[name] = String(value); };
const table = document.querySelector("table.sortable");
const column = 1;
const values = () => [...table.tBodies[0].rows].map(row => {
  const cell = row.cells[column];
  const number = parseFloat(cell.dataset.value ?? cell.textContent);
  return Number.isNaN(number) ? cell.textContent : number;
});
const ascending = list => list.every((value, i) => i === 0 || list[i - 1] <= value);
table.tHead.rows[0].cells[column].click();
note("sorted", ascending(values()));
table.tHead.rows[0].cells[column].click();
note("sortedBack", ascending(values().reverse()));
const canvas = document.querySelector("canvas.heat");
const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
note("drawn", new Set(pixels.filter((_, i) => i % 4 === 0)).size > 3);
const box = canvas.getBoundingClientRect();
const at = { clientX: box.left + box.width / 2, clientY: box.top + box.height / 2, bubbles: true };
canvas.dispatchEvent(new MouseEvent("mousemove", at));
const readout = canvas.parentElement.querySelector(".readout").textContent;
note("readout", readout);
note("read", /^layers\.\d+\.\w+_layernorm, feature \d+: /.test(readout));
// Two ticks at least on either axis and on the scale of colours.
const ticks = name => canvas.parentElement.querySelectorAll(`.${name} span`).length;
note("axes", ["x-ticks", "y-ticks", "key-ticks"].every(name => ticks(name) > 1));
