/** The grey values of a series, and their display through a window. */

import { getBytes } from "./api.js";

/** A series' slices: one byte per pixel, slice after slice, filled as the bytes arrive. */
export class Stack {
  /**
   * @param {{sha256: string, slices: number, rows: number, cols: number}} series
   * @param {() => Promise} onUnknown asks for the exam again: a service that was restarted knows
   *   the stacks of exams that were opened since
   */
  constructor({ sha256, slices, rows, cols }, onUnknown) {
    Object.assign(this, { sha256, slices, rows, cols, onUnknown });
    this.size = rows * cols;
    /** @type {Uint8Array|null} allocated with the first slice */
    this.bytes = null;
    this.there = new Uint8Array(slices);
    this.complete = false;
  }

  has(index) {
    return this.there[index] === 1;
  }

  /** @returns {Uint8Array} the pixels of a slice that is there, row after row */
  slice(index) {
    return this.bytes.subarray(index * this.size, (index + 1) * this.size);
  }

  async #get(path, signal) {
    try {
      return new Uint8Array(await getBytes(path, signal));
    } catch (error) {
      if (error.status !== 404) throw error;
      await this.onUnknown();
      return new Uint8Array(await getBytes(path, signal));
    }
  }

  #write(bytes, offset) {
    this.bytes ??= new Uint8Array(this.slices * this.size);
    this.bytes.set(bytes.subarray(0, Math.max(0, this.bytes.length - offset)), offset);
  }

  /** Loads one slice before the others. */
  async loadSlice(index, signal) {
    if (this.has(index)) return;
    this.#write(await this.#get(`stacks/${this.sha256}/${index}`, signal), index * this.size);
    this.there[index] = 1;
  }

  /**
   * Loads all slices.
   * @param {() => void} onArrived called when further slices can be shown
   */
  async load(signal, onArrived) {
    if (this.complete) return;
    this.#write(await this.#get(`stacks/${this.sha256}`, signal), 0);
    this.there.fill(1);
    this.complete = true;
    onArrived();
  }
}

/** The colours of the 256 grey values, as a canvas stores them (little endian: ABGR). */
const TABLE = new Uint32Array(256);
let tableOf = "";

/**
 * The look-up table of a window.
 * @param {{level: number, width: number, inverted: boolean}} window in grey values
 */
export function lookUpTable({ level, width, inverted }) {
  const wanted = `${level} ${width} ${inverted}`;
  if (wanted !== tableOf) {
    const lowest = level - width / 2;
    for (let grey = 0; grey < 256; grey += 1) {
      const share = Math.min(1, Math.max(0, (grey - lowest) / width));
      const shown = Math.round(255 * (inverted ? 1 - share : share));
      TABLE[grey] = 0xff000000 | (shown << 16) | (shown << 8) | shown;
    }
    tableOf = wanted;
  }
  return TABLE;
}

/**
 * Converts pixels to an image.
 * @param {Uint8Array} pixels
 * @param {Uint32Array} table
 * @param {ImageData} image of as many pixels; overwritten
 */
export function paint(pixels, table, image) {
  const target = new Uint32Array(image.data.buffer);
  for (let at = 0; at < target.length; at += 1) target[at] = table[pixels[at]];
}
