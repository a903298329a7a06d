"use strict";
// Shows the figures of one moment: the slider's, or that under the pointer.
(() => {
  const data = JSON.parse(document.getElementById("data")?.textContent ?? "null");
  if (data === null) return;
  const chooser = document.getElementById("chooser");
  const slider = document.getElementById("moment");
  const reading = document.getElementById("reading");
  const cursor = document.getElementById("cursor");
  const charts = document.getElementById("charts");
  const image = charts.querySelector(".heat img");
  const load = Uint8Array.from(atob(data.load), (c) => c.charCodeAt(0));
  const spans = data.times.length - 1;

  // The load as a multiple of the mean; null where nothing is known (heat.py).
  const times = (row, span) => {
    const byte = load[row * spans + span];
    return byte === 0 ? null : data.top * ((byte - 1) / 254) ** 3;
  };
  const expert = (row) => (data.perRow === 1 ? `${row}` : `${row * data.perRow}–${(row + 1) * data.perRow - 1}`);
  const say = (name, value) => {
    const item = document.createElement("span");
    const strong = document.createElement("b");
    strong.textContent = value;
    item.append(`${name} `, strong);
    return item;
  };

  const show = (span, row) => {
    slider.value = span;
    slider.setAttribute("aria-valuetext", data.times[span]);
    const items = [say("at", data.times[span])];
    for (const [name, values] of data.curves) {
      if (values[span] !== null) items.push(say(name.toLowerCase(), values[span]));
    }
    const rows = [...Array(data.rows).keys()].filter((r) => times(r, span) !== null);
    rows.sort((a, b) => times(b, span) - times(a, span));
    if (rows.length > 0) {
      items.push(say("hottest", rows.slice(0, 3).map((r) => `${expert(r)} (${times(r, span).toFixed(1)}×)`).join(", ")));
    }
    if (row !== undefined && times(row, span) !== null) {
      items.push(say(`expert ${expert(row)}`, `${times(row, span).toFixed(2)}× the mean`));
    }
    items.push(say("variants", data.active[span].map((n) => data.names[n]).join(", ") || "–"));
    reading.replaceChildren(...items);
    cursor.style.left = `${(100 * (span + 0.5)) / spans}%`;
    cursor.hidden = false;
  };

  slider.addEventListener("input", () => show(Number(slider.value)));
  charts.addEventListener("pointermove", (event) => {
    const box = image.getBoundingClientRect();
    const share = (event.clientX - box.left) / box.width;
    if (share < 0 || share >= 1) return;
    const height = (event.clientY - box.top) / box.height;
    const row = height >= 0 && height < 1 ? Math.floor(height * data.rows) : undefined;
    show(Math.floor(share * spans), row);
  });
  chooser.hidden = false;
  show(spans - 1);
})();
