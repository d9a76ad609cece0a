/** Heat maps: the contribution of each cell of a slice to a logit, in colour over the image. */

import { examPath, getBytes } from "./api.js";

/** Orange and blue can be told apart with any colour vision; the same as in the printed pages. */
export const RAISES = [255, 112, 0];
export const LOWERS = [30, 136, 255];

/**
 * @typedef {Object} MapFrame where a series' map lies
 * @property {number} rows number of cells
 * @property {number} cols
 * @property {number} top edges of the map in pixels of the stack; may lie outside of it
 * @property {number} left
 * @property {number} height
 * @property {number} width
 */

/** The heat maps of one exam; loaded once each. */
export class HeatMaps {
  /**
   * @param {string} key the exam
   * @param {Object<string, MapFrame>} frames series -> frame
   * @param {number} scale largest absolute value of any cell of the exam, in logits
   */
  constructor(key, frames, scale) {
    Object.assign(this, { key, frames, scale });
    this.maps = new Map();
    this.loading = new Map();
    this.canvas = document.createElement("canvas");
    this.drawn = "";
  }

  /** Loads the map of a finding in a series. */
  load(series, finding, signal) {
    const name = `${series} ${finding}`;
    if (!this.loading.has(name)) {
      const loaded = getBytes(examPath(this.key, "heat", series, finding), signal).then((bytes) => {
        this.maps.set(name, new Float32Array(bytes));
      });
      loaded.catch(() => this.loading.delete(name));
      this.loading.set(name, loaded);
    }
    return this.loading.get(name);
  }

  /** @returns {Float32Array|null} the cells of a slice, row after row; null while not loaded */
  cells(series, finding, slice) {
    const map = this.maps.get(`${series} ${finding}`);
    if (!map) return null;
    const { rows, cols } = this.frames[series];
    return map.subarray(slice * rows * cols, (slice + 1) * rows * cols);
  }

  /** The cell that adds most (sign 1) or takes most (sign -1), with its centre in pixels. */
  peak(series, finding, slice, sign) {
    const cells = this.cells(series, finding, slice);
    if (!cells) return null;
    let best = 0;
    for (let at = 1; at < cells.length; at += 1) if (sign * cells[at] > sign * cells[best]) best = at;
    const frame = this.frames[series];
    const [row, col] = [Math.floor(best / frame.cols), best % frame.cols];
    return {
      value: cells[best],
      row: frame.top + ((row + 0.5) * frame.height) / frame.rows,
      col: frame.left + ((col + 0.5) * frame.width) / frame.cols,
      height: frame.height / frame.rows,
      width: frame.width / frame.cols,
    };
  }

  /** The contribution of the cell at a pixel, or null outside the map. */
  at(series, finding, slice, row, col) {
    const cells = this.cells(series, finding, slice);
    const frame = this.frames[series];
    if (!cells) return null;
    const down = Math.floor(((row - frame.top) * frame.rows) / frame.height);
    const across = Math.floor(((col - frame.left) * frame.cols) / frame.width);
    const inside = down >= 0 && across >= 0 && down < frame.rows && across < frame.cols;
    return inside ? cells[down * frame.cols + across] : null;
  }

  /** A canvas of one pixel per cell, to be stretched over the frame. */
  picture(series, finding, slice) {
    const cells = this.cells(series, finding, slice);
    if (!cells) return null;
    const { rows, cols } = this.frames[series];
    Object.assign(this.canvas, { width: cols, height: rows });
    const context = this.canvas.getContext("2d");
    const image = context.createImageData(cols, rows);
    for (let at = 0; at < cells.length; at += 1) {
      image.data.set(cells[at] > 0 ? RAISES : LOWERS, 4 * at);
      image.data[4 * at + 3] = this.scale > 0 ? 255 * Math.min(1, Math.abs(cells[at]) / this.scale) : 0;
    }
    context.putImageData(image, 0, 0);
    return this.canvas;
  }
}
