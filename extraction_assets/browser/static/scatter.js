// Dragging over the plot chooses a region: it fills in the fields of the filter form and sends it.
(() => {
  "use strict";
  const plot = document.querySelector("svg.scatter[data-form]");
  const form = plot && document.getElementById(plot.dataset.form);
  if (!form) return;
  const size = { x: Number(plot.dataset.width), y: Number(plot.dataset.height) };
  const from = { x: Number(plot.dataset.firstDensity), y: Number(plot.dataset.firstMaximum) };
  const to = { x: Number(plot.dataset.lastDensity), y: Number(plot.dataset.lastMaximum) };
  const box = document.createElementNS("http://www.w3.org/2000/svg", "rect");
  let start = null;
  plot.dataset.brush = "1";
  for (const note of document.querySelectorAll(".needs-script")) note.hidden = false;

  function place(event) {
    const at = new DOMPoint(event.clientX, event.clientY).matrixTransform(plot.getScreenCTM().inverse());
    const inside = (value, most) => Math.min(most, Math.max(0, value));
    return { x: inside(at.x, size.x), y: inside(at.y, size.y) };
  }

  // The logarithmic value at a share of an axis, in four digits; nothing at its ends, which leaves the side open.
  function value(share, axis) {
    if (share <= 0.002 || share >= 0.998) return "";
    return String(Number((from[axis] * Math.pow(to[axis] / from[axis], share)).toPrecision(4)));
  }

  function draw(end) {
    box.setAttribute("x", Math.min(start.x, end.x));
    box.setAttribute("y", Math.min(start.y, end.y));
    box.setAttribute("width", Math.abs(start.x - end.x));
    box.setAttribute("height", Math.abs(start.y - end.y));
  }

  plot.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    start = place(event);
    box.setAttribute("class", "brush");
    plot.append(box);
    plot.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  plot.addEventListener("pointermove", (event) => start && draw(place(event)));
  plot.addEventListener("pointercancel", () => {
    start = null;
    box.remove();
  });
  plot.addEventListener("pointerup", (event) => {
    if (!start) return;
    const end = place(event);
    const far = Math.abs(start.x - end.x) > 3 || Math.abs(start.y - end.y) > 3;
    if (far) {
      const set = (name, text) => (form.elements[name].value = text);
      set("min_density", value(Math.min(start.x, end.x) / size.x, "x"));
      set("max_density", value(Math.max(start.x, end.x) / size.x, "x"));
      set("min_maximum", value(1 - Math.max(start.y, end.y) / size.y, "y"));
      set("max_maximum", value(1 - Math.min(start.y, end.y) / size.y, "y"));
      form.requestSubmit();
    }
    start = null;
    box.remove();
  });
})();
