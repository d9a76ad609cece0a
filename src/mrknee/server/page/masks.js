/** Lesion masks of a data set: outlines, and whether the heat map's maximum lies in the lesion. */

import { examPath, getBytes } from "./api.js";

/** The lesion masks of one exam; loaded once each. */
export class Masks {
  /** @param {string} key @param {Array<{name: string, rows: number, cols: number, masks: string[]}>} series */
  constructor(key, series) {
    this.key = key;
    this.series = new Map(series.map((one) => [one.name, one]));
    this.masks = new Map();
    this.loading = new Map();
    this.paths = new Map();
  }

  /** Whether the exam has a mask of a finding in any series. */
  any(finding) {
    return [...this.series.values()].some(({ masks }) => masks.includes(finding));
  }

  /** Loads the masks of a finding. */
  async load(finding, signal) {
    const wanted = [...this.series.values()].filter(({ masks }) => masks.includes(finding));
    await Promise.all(
      wanted.map(({ name }) => {
        const id = `${name} ${finding}`;
        if (!this.loading.has(id)) {
          const loaded = getBytes(examPath(this.key, "masks", name, finding), signal).then((bytes) => {
            this.masks.set(id, new Uint8Array(bytes));
          });
          loaded.catch(() => this.loading.delete(id));
          this.loading.set(id, loaded);
        }
        return this.loading.get(id);
      }),
    );
  }

  /** @returns {Uint8Array|null} the mask of a slice; null if there is none or it is not loaded */
  slice(series, finding, index) {
    const mask = this.masks.get(`${series} ${finding}`);
    if (!mask) return null;
    const { rows, cols } = this.series.get(series);
    return mask.subarray(index * rows * cols, (index + 1) * rows * cols);
  }

  /** Whether a pixel belongs to the lesion; null if that is not known. */
  contains(series, finding, index, row, col) {
    const mask = this.slice(series, finding, index);
    const { rows, cols } = this.series.get(series);
    const [down, across] = [Math.floor(row), Math.floor(col)];
    if (!mask || down < 0 || across < 0 || down >= rows || across >= cols) return null;
    return mask[down * cols + across] > 0;
  }

  /** The slices of a series that contain the lesion. */
  slices(series, finding) {
    const { slices } = this.series.get(series);
    return Array.from({ length: slices }, (_, index) => index).filter((index) =>
      this.slice(series, finding, index)?.some((value) => value > 0),
    );
  }

  /** @returns {Path2D|null} the borders of the lesion's pixels in a slice, in pixels of the stack */
  outline(series, finding, index) {
    const mask = this.slice(series, finding, index);
    if (!mask) return null;
    const id = `${series} ${finding} ${index}`;
    if (!this.paths.has(id)) {
      const { rows, cols } = this.series.get(series);
      this.paths.set(id, borders(mask, rows, cols));
    }
    return this.paths.get(id);
  }
}

/** The edges between pixels inside and outside a mask. */
function borders(mask, rows, cols) {
  const path = new Path2D();
  const inside = (row, col) => row >= 0 && col >= 0 && row < rows && col < cols && mask[row * cols + col] > 0;
  for (let row = 0; row <= rows; row += 1) {
    for (let col = 0; col <= cols; col += 1) {
      if (inside(row, col) !== inside(row - 1, col)) {
        path.moveTo(col, row);
        path.lineTo(col + 1, row);
      }
      if (inside(row, col) !== inside(row, col - 1)) {
        path.moveTo(col, row);
        path.lineTo(col, row + 1);
      }
    }
  }
  return path;
}
