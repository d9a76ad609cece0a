/** A viewport: a canvas with one slice of a series, overlay and texts, and the gestures on it. */

import { gestureCommand } from "./bindings.js";
import { element, place } from "./dom.js";
import { lookUpTable, paint } from "./stack.js";
import { signed } from "./words.js";

const ZOOMS = [0.5, 20];
const CINE_SLICES_PER_S = 10;
/** Wheel travel of one slice, in pixels. An event with as much or more (a wheel's notch) is one slice. */
const TRAVEL = 40;
const LINE = 16; // pixels of a line, where wheels count lines
const FULL = { level: 127.5, width: 255, inverted: false, zoom: 1, panX: 0, panY: 0 };

/**
 * @typedef {Object} Overlay what is drawn over a slice
 * @property {HTMLCanvasElement|null} heat cells, stretched over the frame
 * @property {import("./heat.js").MapFrame|null} frame
 * @property {number} opacity
 * @property {{row: number, col: number, width: number, height: number, sign: number}|null} mark
 * @property {Path2D|null} outline
 * @property {{value: number, decisive: boolean}|null} score of the slice
 */

export class Viewport {
  /**
   * @param {Object} series of the exam, with name, title, slices, rows, cols
   * @param {import("./stack.js").Stack} stack
   * @param {Object} callbacks
   * @param {(viewport: Viewport) => Overlay|null} callbacks.overlay
   * @param {(viewport: Viewport) => void} callbacks.onSlice after another slice was chosen
   * @param {(viewport: Viewport) => void} callbacks.onActive when the viewport is used
   * @param {(viewport: Viewport) => void} callbacks.onMaximise
   * @param {(viewport: Viewport, at: {row: number, col: number}|null, follow: boolean) => void} callbacks.onPoint
   *   when the pointer moves over the image, and null when it leaves it; follow: whether other series should
   * @param {(viewport: Viewport, row: number, col: number) => string} callbacks.readout text of a pixel
   */
  constructor(series, stack, callbacks) {
    Object.assign(this, { series, stack, callbacks }, FULL);
    this.index = Math.floor(stack.slices / 2);
    this.moved = false; // whether a person chose the slice
    this.cine = 0;
    this.travel = 0;
    this.pointers = new Map();
    this.leftOut = new Set(); // slices that "What if" leaves out
    this.cross = null; // row and column of a point that another viewport shows
    this.image = new ImageData(stack.cols, stack.rows);
    this.native = element("canvas", { width: stack.cols, height: stack.rows });
    this.painted = "";
    this.frame = 0;
    const [, down, across] = series.spacing ?? [1, 1, 1];
    this.pixel = { x: across / Math.min(down, across), y: down / Math.min(down, across) };
    this.#build();
  }

  #build() {
    this.canvas = element("canvas", {
      tabindex: 0,
      role: "application",
      "aria-roledescription": "image stack",
      "aria-keyshortcuts": "ArrowUp ArrowDown",
    });
    this.texts = Object.fromEntries(
      ["slice", "exam", "window", "notice", "top", "bottom", "left", "right", "wait"].map((name) => [
        name,
        element("span", { class: `corner ${name}`, "aria-hidden": "true" }),
      ]),
    );
    this.scaleBar = element("span", { class: "scale-bar", "aria-hidden": "true", hidden: true });
    this.texts.notice.textContent = "Research use only";
    ["left", "right", "top", "bottom"].forEach((side, number) => {
      this.texts[side].textContent = this.series.orientation?.[number] ?? "";
    });
    this.screen = element("div", { class: "screen" }, this.canvas, Object.values(this.texts), this.scaleBar);
    this.sizes = new ResizeObserver(() => this.#resize());
    this.sizes.observe(this.screen);
    const canvas = this.canvas;
    canvas.addEventListener("wheel", (event) => this.#wheel(event), { passive: false });
    canvas.addEventListener("pointerdown", (event) => this.#down(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const name of ["pointerup", "pointercancel"]) {
      canvas.addEventListener(name, (event) => this.pointers.delete(event.pointerId));
    }
    canvas.addEventListener("pointerleave", () => {
      this.#describe();
      this.callbacks.onPoint(this, null, false);
    });
    canvas.addEventListener("contextmenu", (event) => event.preventDefault());
    canvas.addEventListener("mousedown", (event) => event.button === 1 && event.preventDefault());
    canvas.addEventListener("focus", () => this.callbacks.onActive(this));
    canvas.addEventListener("dblclick", () => {
      if (gestureCommand("double") === "maximise") this.callbacks.onMaximise(this);
    });
  }

  /** Ends everything that would keep the viewport alive. */
  remove() {
    this.stopCine();
    this.sizes.disconnect();
    cancelAnimationFrame(this.frame);
  }

  // what is shown

  /** Shows a slice, limited to those that exist. */
  show(index) {
    const next = Math.min(this.stack.slices - 1, Math.max(0, index));
    if (next === this.index) return;
    this.index = next;
    this.draw();
    this.callbacks.onSlice(this);
  }

  /** Shows a slice that a person asked for. */
  choose(index) {
    this.moved = true;
    this.stopCine();
    this.show(index);
  }

  step(count) {
    this.choose(this.index + count);
  }

  reset() {
    Object.assign(this, FULL);
    this.draw();
  }

  invert() {
    this.inverted = !this.inverted;
    this.draw();
  }

  /** Changes the window, in grey values. */
  windowBy(width, level) {
    this.width = Math.min(510, Math.max(2, this.width + width));
    this.level = Math.min(255, Math.max(0, this.level + level));
    this.draw();
  }

  panBy(x, y) {
    this.panX += x;
    this.panY += y;
    this.draw();
  }

  /** Zooms by a factor; the point (x, y), in pixels from the centre, stays where it is. */
  zoomBy(factor, x = 0, y = 0) {
    const zoom = Math.min(ZOOMS[1], Math.max(ZOOMS[0], this.zoom * factor));
    const change = zoom / this.zoom;
    this.panX = x - (x - this.panX) * change;
    this.panY = y - (y - this.panY) * change;
    this.zoom = zoom;
    this.draw();
  }

  toggleCine() {
    if (this.cine) {
      this.stopCine();
      return;
    }
    this.moved = true;
    this.cine = setInterval(() => this.show((this.index + 1) % this.stack.slices), 1000 / CINE_SLICES_PER_S);
    this.draw();
  }

  stopCine() {
    clearInterval(this.cine);
    this.cine = 0;
  }

  // gestures

  #wheel(event) {
    event.preventDefault();
    this.callbacks.onActive(this);
    const command = gestureCommand("wheel", { pinch: event.ctrlKey });
    const unit = event.deltaMode === 1 ? LINE : event.deltaMode === 2 ? TRAVEL : 1;
    const delta = event.deltaY * unit;
    if (command === "zoom") {
      const { x, y } = this.#fromCentre(event);
      this.zoomBy(Math.exp(-delta / 200), x, y);
    } else if (command === "slices") {
      this.#travel(delta, TRAVEL);
    }
  }

  /** Turns small movements into slices: what is too little for a slice is kept for the next one. */
  #travel(delta, perSlice) {
    if (Math.sign(delta) !== Math.sign(this.travel)) this.travel = 0;
    this.travel += Math.min(perSlice, Math.max(-perSlice, delta));
    const steps = Math.trunc(this.travel / perSlice);
    this.travel -= steps * perSlice;
    if (steps) this.step(steps);
  }

  #fromCentre({ clientX, clientY }) {
    const box = this.canvas.getBoundingClientRect();
    return { x: clientX - box.left - box.width / 2, y: clientY - box.top - box.height / 2 };
  }

  #down(event) {
    this.canvas.setPointerCapture(event.pointerId);
    this.canvas.focus({ preventScroll: true, focusVisible: false });
    this.travel = 0;
    const at = this.#fromCentre(event);
    this.pointers.set(event.pointerId, { ...at, startX: at.x, startY: at.y });
  }

  #move(event) {
    const at = this.#fromCentre(event);
    const before = this.pointers.get(event.pointerId);
    if (!before) {
      this.#describe(at);
      this.callbacks.onPoint(this, this.pixelAt(at), gestureCommand("hover", { shift: event.shiftKey }) === "link");
      return;
    }
    const [dx, dy] = [at.x - before.x, at.y - before.y];
    if (event.pointerType === "touch") this.#touch(event.pointerId, at, dx, dy);
    else this.#drag(gestureCommand("mouse", { buttons: event.buttons }), before, dx, dy);
    this.pointers.set(event.pointerId, { ...before, ...at });
  }

  #drag(command, { startX, startY }, dx, dy) {
    if (command === "window") this.windowBy(dx, dy); // down raises the level: darker
    else if (command === "zoom") this.zoomBy(Math.exp(-dy / 150), startX, startY);
    else if (command === "pan") this.panBy(dx, dy);
    else if (command === "slices") this.#travel(dy, this.#touchTravel());
  }

  #touch(id, at, dx, dy) {
    const command = gestureCommand("touch", { fingers: this.pointers.size });
    if (command !== "zoom-and-pan") {
      this.#drag(command, at, dx, dy);
      return;
    }
    const [[, other]] = [...this.pointers].filter(([one]) => one !== id);
    const before = this.pointers.get(id);
    const distance = (one) => Math.max(1, Math.hypot(one.x - other.x, one.y - other.y));
    this.panBy(dx / 2, dy / 2);
    this.zoomBy(distance(at) / distance(before), (at.x + other.x) / 2, (at.y + other.y) / 2);
  }

  /** A finger's way for one slice: the whole stack fits into one swipe over the viewport. */
  #touchTravel() {
    return Math.min(30, Math.max(5, (0.8 * this.screen.clientHeight) / this.stack.slices));
  }

  // drawing

  #resize() {
    const ratio = devicePixelRatio || 1;
    this.canvas.width = Math.max(1, Math.round(this.screen.clientWidth * ratio));
    this.canvas.height = Math.max(1, Math.round(this.screen.clientHeight * ratio));
    this.screen.classList.toggle("small", this.screen.clientWidth < 220);
    this.#paint();
  }

  /** CSS pixels per pixel of the stack, across and down. */
  get scale() {
    const { cols, rows } = this.stack;
    const [width, height] = [this.screen.clientWidth, this.screen.clientHeight];
    const fit = Math.min(width / (cols * this.pixel.x), height / (rows * this.pixel.y));
    return { x: fit * this.zoom * this.pixel.x, y: fit * this.zoom * this.pixel.y };
  }

  /** Row and column of the stack at a point, in pixels from the canvas's centre. */
  pixelAt({ x, y }) {
    const scale = this.scale;
    return {
      row: (y - this.panY) / scale.y + this.stack.rows / 2,
      col: (x - this.panX) / scale.x + this.stack.cols / 2,
    };
  }

  /** Shows a text in the middle for a moment. */
  say(text) {
    this.said = text;
    this.draw();
    setTimeout(() => {
      this.said = null;
      this.draw();
    }, 2500);
  }

  // position in the patient

  /** Patient coordinates, in mm, of a point of the shown slice; for series of known position. */
  locate({ row, col }) {
    const { first, steps } = this.series.position;
    const [slice, down, across] = steps;
    return first.map((start, k) => start + this.index * slice[k] + (row - 0.5) * down[k] + (col - 0.5) * across[k]);
  }

  /** Slice (its centre is a whole number), row and column of a point in patient coordinates. */
  find(point) {
    const { first, steps } = this.series.position;
    const offset = point.map((value, k) => value - first[k]);
    const [slice, row, col] = steps.map((step) => dot(offset, step) / dot(step, step));
    return { slice, row: row + 0.5, col: col + 0.5 };
  }

  /** Marks a point if the shown slice contains it; null removes the mark. */
  setCross(place) {
    const { rows, cols } = this.stack;
    const inside = place && Math.abs(place.slice - this.index) <= 0.5 && place.row >= 0 && place.col >= 0 && place.row <= rows && place.col <= cols;
    if (!inside && !this.cross) return;
    this.cross = inside ? { row: place.row, col: place.col } : null;
    this.draw();
  }

  /** Draws before the next frame. */
  draw() {
    if (this.frame) return;
    this.frame = requestAnimationFrame(() => this.#paint());
  }

  #paint() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { canvas, stack, index } = this;
    const context = canvas.getContext("2d");
    const ratio = devicePixelRatio || 1;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.fillStyle = "#000";
    context.fillRect(0, 0, canvas.width, canvas.height);
    const there = stack.has(index);
    this.overlay = there ? this.callbacks.overlay(this) : null;
    if (there) {
      const { x, y } = this.scale;
      const left = this.screen.clientWidth / 2 + this.panX - (x * stack.cols) / 2;
      const top = this.screen.clientHeight / 2 + this.panY - (y * stack.rows) / 2;
      const matrix = new DOMMatrix([x * ratio, 0, 0, y * ratio, left * ratio, top * ratio]);
      this.#paintSlice();
      context.setTransform(matrix);
      context.imageSmoothingQuality = x * ratio < 1 ? "medium" : "low"; // low is fast, and as good for enlarging
      context.drawImage(this.native, 0, 0);
      this.#paintOverlay(context, matrix, ratio);
      this.#paintCross(context, matrix, ratio);
    }
    canvas.dataset.cross = this.cross ? `${this.cross.row.toFixed(1)} ${this.cross.col.toFixed(1)}` : "";
    this.#describe();
    this.#describeSlice();
    this.texts.wait.textContent = there ? this.said ?? "" : "Loading\u2026";
    canvas.dataset.shown = there ? `${this.series.name} ${index + 1}` : "";
  }

  /** Converts the slice to grey values, unless it is the one converted last. */
  #paintSlice() {
    const { index, level, width, inverted } = this;
    const wanted = `${index} ${level} ${width} ${inverted}`;
    if (wanted === this.painted) return;
    paint(this.stack.slice(index), lookUpTable(this), this.image);
    this.native.getContext("2d").putImageData(this.image, 0, 0);
    this.painted = wanted;
  }

  #paintOverlay(context, matrix, ratio) {
    const overlay = this.overlay;
    if (!overlay) return;
    const { frame, heat, opacity, mark, outline } = overlay;
    context.save();
    context.beginPath();
    context.rect(0, 0, this.stack.cols, this.stack.rows);
    context.clip();
    if (heat) {
      context.globalAlpha = opacity;
      context.imageSmoothingQuality = "low"; // bilinear between the centres of the cells
      context.drawImage(heat, frame.left, frame.top, frame.width, frame.height);
      context.globalAlpha = 1;
    }
    context.setTransform(1, 0, 0, 1, 0, 0); // lines have the same width at each zoom
    if (heat) {
      const edge = new Path2D();
      edge.rect(frame.left, frame.top, frame.width, frame.height);
      this.#stroke(context, edge, matrix, "rgba(255, 255, 255, 0.28)", ratio, [4 * ratio, 4 * ratio]);
    }
    if (outline) {
      this.#stroke(context, outline, matrix, "rgba(0, 0, 0, 0.75)", 3.5 * ratio);
      this.#stroke(context, outline, matrix, "#ffe45c", 1.6 * ratio);
    }
    if (mark) {
      const ring = new Path2D();
      ring.ellipse(mark.col, mark.row, mark.width * 0.75, mark.height * 0.75, 0, 0, 2 * Math.PI);
      this.#stroke(context, ring, matrix, "rgba(0, 0, 0, 0.7)", 4 * ratio);
      this.#stroke(context, ring, matrix, mark.sign > 0 ? "#ffb066" : "#9cc9ff", 2 * ratio);
    }
    context.restore();
  }

  #paintCross(context, matrix, ratio) {
    if (!this.cross) return;
    const { x, y } = matrix.transformPoint(new DOMPoint(this.cross.col, this.cross.row));
    const lines = new Path2D();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      lines.moveTo(x + 4 * ratio * dx, y + 4 * ratio * dy);
      lines.lineTo(x + 14 * ratio * dx, y + 14 * ratio * dy);
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    this.#stroke(context, lines, new DOMMatrix(), "rgba(0, 0, 0, 0.75)", 3.5 * ratio);
    this.#stroke(context, lines, new DOMMatrix(), "#6ff", 1.6 * ratio);
  }

  #stroke(context, path, matrix, colour, width, dashes = []) {
    const moved = new Path2D();
    moved.addPath(path, matrix);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.setLineDash(dashes);
    context.stroke(moved);
  }

  /** Writes the texts in the corners; with a point, the values there. */
  #describe(at = null) {
    const { texts, stack, index } = this;
    const level = `W ${Math.round(this.width)}  L ${Math.round(this.level)}${this.inverted ? "  inverted" : ""}`;
    let last = `Zoom ${this.zoom.toFixed(1)}\u00d7`;
    if (at && stack.has(index)) {
      const { row, col } = this.pixelAt(at);
      if (row >= 0 && col >= 0 && row < stack.rows && col < stack.cols) {
        const grey = stack.slice(index)[Math.floor(row) * stack.cols + Math.floor(col)];
        const heat = this.callbacks.readout(this, row, col);
        last = `Grey ${grey}${heat === null ? "" : `\nCell ${signed(heat, 3)}`}`;
      }
    }
    texts.window.textContent = `${level}\n${last}`;
    this.#describeScale();
  }

  /** Series, number and score of the slice. */
  #describeSlice() {
    const { series, stack, index, overlay } = this;
    const lines = [`${series.title}\n${index + 1} / ${stack.slices}`];
    if (this.cine) lines.push("  cine");
    if (this.leftOut.has(index)) lines.push("\n", element("span", { class: "tag" }, "Left out"));
    else if (overlay?.score) {
      const { value, decisive } = overlay.score;
      lines.push("  ", element("span", { class: value < 0 ? "lowers" : "raises" }, signed(value)));
      if (decisive) lines.push("\n", element("span", { class: "tag" }, "Decisive slice"));
    }
    this.texts.slice.replaceChildren(...lines);
  }

  /** A bar of 1, 2, 5, ... mm, at most a quarter of the viewport, where the spacing is known. */
  #describeScale() {
    const spacing = this.series.spacing;
    this.scaleBar.hidden = !spacing;
    if (!spacing) return;
    const perMm = this.scale.x / spacing[2];
    const longest = this.screen.clientWidth / 4 / perMm;
    const lengths = [1, 2, 5, 10, 20, 50, 100, 200];
    const length = lengths.filter((one) => one <= longest).pop() ?? 1;
    this.scaleBar.textContent = length >= 10 ? `${length / 10} cm` : `${length} mm`;
    place(this.scaleBar, { width: `${length * perMm}px` });
  }
}

function dot(one, other) {
  return one.reduce((sum, value, k) => sum + value * other[k], 0);
}
