"use strict";
// Balls and sticks to turn, from the numbers beside the canvas. Without scripts it stays hidden.
{
const product = (a, b) => a.map((_, k) => {
  const [row, column] = [k - (k % 3), k % 3];
  return a[row] * b[column] + a[row + 1] * b[column + 3] + a[row + 2] * b[column + 6];
});
const turned = (t, [x, y, z]) => [0, 3, 6].map((i) => t[i] * x + t[i + 1] * y + t[i + 2] * z);
const mixed = (a, b, share) => a.map((value, i) => value + share * (b[i] - value));
const css = (colour) => `rgb(${colour.map(Math.round).join(" ")})`;
const middle = (a, b) => mixed(a, b, 0.5);
const [WHITE, BOND, BOX, UNKNOWN] = [[255, 255, 255], [178, 178, 178], [90, 90, 90], [200, 200, 200]];
const PIECES = 12; // of an edge of the cell, each behind or before an atom
function cellEdges(cell) {
  const vectors = [0, 3, 6].map((i) => cell.slice(i, i + 3)).filter((v) => v.some(Boolean));
  const corner = (mask) => [0, 1, 2].map((axis) =>
    vectors.reduce((sum, v, bit) => sum + ((mask >> bit) & 1) * v[axis], 0));
  const masks = [...Array(1 << vectors.length).keys()];
  return masks.flatMap((mask) => vectors.map((_, bit) => 1 << bit)
    .filter((bit) => !(mask & bit)).map((bit) => [corner(mask), corner(mask | bit)]));
}
for (const view of document.querySelectorAll(".structures")) {
  const data = JSON.parse(view.querySelector("script").textContent);
  const canvas = view.querySelector("canvas");
  const pen = canvas.getContext("2d");
  let [at, by, held] = [0, "element", null];
  const shown = data.structures.map((given) => {
    const pos = given.z.map((_, i) => given.pos.slice(3 * i, 3 * i + 3));
    const edges = given.cell ? cellEdges(given.cell) : [];
    const points = [...pos, ...edges.flat()];
    const ends = [Math.min, Math.max].map((most) =>
      [0, 1, 2].map((axis) => points.reduce((found, p) => most(found, p[axis]), points[0][axis])));
    const centre = middle(...ends);
    const reach = points.reduce((far, p) =>
      Math.max(far, Math.hypot(...p.map((value, i) => value - centre[i]))), 0);
    return { ...given, pos, edges, centre, reach: reach + 0.5 };
  });
  const scaled = (share) => {
    const place = Math.min(share, 1) * (data.scale.length - 1);
    const from = Math.min(Math.floor(place), data.scale.length - 2);
    return mixed(data.scale[from], data.scale[from + 1], place - from);
  };
  function colourOf(structure, i) {
    if (by === "element") return data.elements[structure.z[i]].colour;
    const value = (structure[by] || [])[i];
    return value === null || value === undefined ? UNKNOWN : scaled(value / data.most);
  }
  function draw() {
    const structure = shown[at];
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    canvas.width = width * ratio;
    canvas.height = height * ratio;
    const scale = (ratio * Math.min(width, height)) / 2.1 / structure.reach;
    const near = (z) => z / structure.reach; // -1 far, 1 near
    const seen = (p) => {
      const [x, y, z] = turned(structure.turn, p.map((value, i) => value - structure.centre[i]));
      const size = scale * (1 + 0.12 * near(z));
      return [canvas.width / 2 + x * size, canvas.height / 2 - y * size, z];
    };
    const faded = (colour, z) => css(mixed(colour, WHITE, 0.225 * (1 - near(z))));
    const items = [];
    const line = (a, b, z, colour, thick) => items.push([z, () => {
      pen.beginPath();
      pen.moveTo(a[0], a[1]);
      pen.lineTo(b[0], b[1]);
      [pen.strokeStyle, pen.lineWidth] = [faded(colour, z), thick];
      pen.stroke();
    }]);
    for (const [a, b] of structure.edges) {
      for (let i = 0; i < PIECES; i++) {
        const [from, to] = [seen(mixed(a, b, i / PIECES)), seen(mixed(a, b, (i + 1) / PIECES))];
        line(from, to, (from[2] + to[2]) / 2, BOX, 1.2 * ratio);
      }
    }
    const atoms = structure.pos.map(seen);
    for (let k = 0; k < structure.bonds.length; k += 2) {
      const [a, b] = [atoms[structure.bonds[k]], atoms[structure.bonds[k + 1]]];
      for (const end of [a, b]) line(end, middle(a, b), end[2] - 0.01, BOND, 0.17 * scale);
    }
    atoms.forEach(([x, y, z], i) => items.push([z, () => {
      const { symbol, radius } = data.elements[structure.z[i]];
      const colour = colourOf(structure, i);
      const size = radius * scale * (1 + 0.12 * near(z));
      pen.beginPath();
      pen.arc(x, y, size, 0, 2 * Math.PI);
      pen.fillStyle = by === "element" ? faded(colour, z) : css(colour); // a number does not fade
      pen.fill();
      [pen.strokeStyle, pen.lineWidth] = [faded([60, 60, 60], z), ratio];
      pen.stroke();
      if (symbol === "H" || size < 5 * ratio) return;
      const bright = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2] > 153;
      pen.fillStyle = bright ? "#1a1a1a" : "#fff";
      pen.font = `bold ${size}px sans-serif`;
      pen.fillText(symbol, x, y);
    }]));
    [pen.textAlign, pen.textBaseline] = ["center", "middle"];
    for (const [, paint] of items.sort((a, b) => a[0] - b[0])) paint();
  }
  function legend() {
    const swatch = (background, kind, ...texts) => {
      const [mark, item] = [document.createElement("i"), document.createElement("span")];
      [mark.style.background, mark.className] = [background, kind];
      item.append(...texts.slice(0, -1), mark, texts[texts.length - 1]);
      return item;
    };
    const bar = `linear-gradient(to right, ${data.scale.map(css).join(", ")})`;
    const elements = [...new Set(shown[at].z)].map((z) => data.elements[z]);
    view.querySelector(".legend").replaceChildren(...(by === "element"
      ? elements.map((each) => swatch(css(each.colour), "", each.symbol))
      : [swatch(bar, "scale", "0", `${data.most} ${data.unit}`)]));
  }
  function show() {
    view.querySelector(".count").textContent = `${at + 1} of ${shown.length}`;
    view.querySelector(".shown").textContent = shown[at].caption;
    canvas.setAttribute("aria-label", `${shown[at].caption} Arrow keys turn it.`);
    for (const button of view.querySelectorAll("[data-colour]")) {
      button.setAttribute("aria-pressed", String(button.dataset.colour === by));
    }
    legend();
    draw();
  }
  function turn(right, down) {
    const [a, b, c, d] = [Math.cos(right), Math.sin(right), Math.cos(down), Math.sin(down)];
    const both = product([1, 0, 0, 0, c, -d, 0, d, c], [a, 0, b, 0, 1, 0, -b, 0, a]);
    shown[at].turn = product(both, shown[at].turn);
    draw();
  }
  view.addEventListener("click", ({ target }) => {
    const { step, colour } = target.dataset;
    if (step) at = (at + Number(step) + shown.length) % shown.length;
    if (colour) by = colour;
    if (step || colour) show();
  });
  canvas.addEventListener("keydown", (event) => {
    const way = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    if (!way) return;
    event.preventDefault(); // the page stays where it is
    turn(0.15 * way[0], 0.15 * way[1]);
  });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    held = [event.clientX, event.clientY];
  });
  canvas.addEventListener("pointermove", (event) => {
    if (!held) return;
    turn(0.01 * (event.clientX - held[0]), 0.01 * (event.clientY - held[1]));
    held = [event.clientX, event.clientY];
  });
  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { held = null; });
  view.hidden = false;
  show();
  new ResizeObserver(draw).observe(canvas);
}
}
