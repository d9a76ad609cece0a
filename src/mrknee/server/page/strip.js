/** The strip below a viewport: one bar per slice, up where the slice adds to the logit. */

import { element } from "./dom.js";
import { effect } from "./words.js";

const HEIGHT = 56;
const MARK = 7; // height of the triangle above the decisive slice

export class Strip {
  /**
   * @param {Object} series
   * @param {(index: number) => void} onChoose called with the slice that was clicked
   */
  constructor(series, onChoose) {
    Object.assign(this, { series, onChoose });
    this.slices = series.slices;
    this.scores = null;
    this.largest = 0;
    this.decisive = -1;
    this.index = 0;
    this.leftOut = new Set();
    this.node = element("canvas", { class: "strip", role: "img", "aria-label": "" });
    this.sizes = new ResizeObserver(() => this.draw());
    this.sizes.observe(this.node);
    const choose = (event) => {
      if (event.type === "pointermove" && !event.buttons) return;
      const box = this.node.getBoundingClientRect();
      const share = (event.clientX - box.left) / box.width;
      this.onChoose(Math.min(this.slices - 1, Math.max(0, Math.floor(share * this.slices))));
    };
    this.node.addEventListener("pointerdown", (event) => {
      event.preventDefault(); // the focus goes to the viewport
      this.node.setPointerCapture(event.pointerId);
      choose(event);
    });
    this.node.addEventListener("pointermove", choose);
  }

  remove() {
    this.sizes.disconnect();
  }

  /**
   * @param {number[]|null} scores per slice; null: unknown
   * @param {number} largest score of a full bar
   * @param {number} decisive the slice to mark, or -1
   * @param {string} title of the finding
   */
  setScores(scores, largest, decisive, title) {
    Object.assign(this, { scores, largest, decisive });
    const name = this.series.title;
    this.node.setAttribute(
      "aria-label",
      scores
        ? `${name}: contribution of each of ${this.slices} slices; slice ${decisive + 1} ${effect(scores[decisive], title)}`
        : `${name}: ${this.slices} slices`,
    );
    this.draw();
  }

  setIndex(index) {
    this.index = index;
    this.draw();
  }

  /** @param {Set<number>} slices that are left out of the what-if */
  setLeftOut(slices) {
    this.leftOut = slices;
    this.draw();
  }

  draw() {
    const { node, scores, slices } = this;
    const ratio = devicePixelRatio || 1;
    const width = node.clientWidth;
    if (!width) return;
    node.width = Math.round(width * ratio);
    node.height = Math.round(HEIGHT * ratio);
    const styles = getComputedStyle(node);
    const colour = (name) => styles.getPropertyValue(name).trim();
    const context = node.getContext("2d");
    context.scale(ratio, ratio);
    const each = width / slices;
    const top = MARK + 2;
    const middle = top + (HEIGHT - top) / 2;
    const tallest = (HEIGHT - top) / 2 - 1;
    context.fillStyle = colour("--strip-now");
    context.fillRect(this.index * each, top, Math.max(each, 2), HEIGHT - top);
    context.fillStyle = colour("--line");
    context.fillRect(0, middle - 0.5, width, 1);
    const gap = each > 4 ? 1 : 0;
    for (let index = 0; index < slices; index += 1) {
      const score = scores?.[index] ?? 0;
      const size = this.largest > 0 ? (tallest * score) / this.largest : 0;
      context.fillStyle = colour(this.leftOut.has(index) ? "--muted" : score > 0 ? "--raises" : "--lowers");
      if (this.leftOut.has(index)) context.fillRect(index * each, middle - 2, each - gap, 4);
      else if (size) context.fillRect(index * each, Math.min(middle, middle - size), each - gap, Math.max(1, Math.abs(size)));
    }
    const now = (this.index + 0.5) * each;
    context.fillStyle = colour("--ink");
    context.fillRect(now - 0.75, top, 1.5, HEIGHT - top);
    if (this.decisive >= 0) {
      const at = (this.decisive + 0.5) * each;
      context.fillStyle = colour("--accent");
      context.beginPath();
      context.moveTo(at - MARK * 0.8, 0);
      context.lineTo(at + MARK * 0.8, 0);
      context.lineTo(at, MARK);
      context.fill();
    }
  }
}
