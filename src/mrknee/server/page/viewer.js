/** The viewports of an exam in a layout, and the commands on them. */

import { examPath, getJson } from "./api.js";
import { keyBinding } from "./bindings.js";
import { element, place } from "./dom.js";
import { Stack } from "./stack.js";
import { Strip } from "./strip.js";
import { settings } from "./state.js";
import { Viewport } from "./viewport.js";

/** Layout -> columns and number of viewports. */
export const LAYOUTS = { 1: [1, 1], 2: [2, 2], 3: [3, 3], "2x2": [2, 4], 6: [3, 6] };
const PHONE = matchMedia("(max-width: 700px)");

/** Names of the layouts for a number of series, by viewports; layouts that would look the same are listed once. */
export function layoutsFor(series) {
  const seen = new Set();
  return Object.keys(LAYOUTS)
    .sort((one, other) => LAYOUTS[one][1] - LAYOUTS[other][1])
    .filter((name) => {
      const [columns, cells] = LAYOUTS[name];
      const shown = Math.min(cells, series);
      const look = `${Math.min(columns, shown)} ${shown}`;
      return !seen.has(look) && seen.add(look);
    });
}

/** The layout that shows all series, or one of them on a phone. */
export function defaultLayout(series) {
  if (PHONE.matches) return "1";
  return layoutsFor(series).find((name) => LAYOUTS[name][1] >= series) ?? "6";
}

/**
 * Commands act on the active viewport. Each series has one viewport; a layout with fewer viewports
 * than series shows those around the active one.
 */
export class Viewer {
  /**
   * @param {Object} exam
   * @param {Object} callbacks as of Viewport, and onActive(viewport)
   * @param {AbortSignal} signal ends all requests
   */
  constructor(exam, callbacks, signal) {
    Object.assign(this, { exam, callbacks, signal });
    this.active = 0;
    this.maximised = false;
    this.pointed = null; // viewport and point under the pointer
    this.layout = defaultLayout(exam.series.length);
    this.viewports = exam.series.map((series, number) => this.#viewport(series, number));
    this.tabs = element("div", { class: "tabs", role: "group", "aria-label": "Series" },
      this.viewports.map((one, number) =>
        element("button", { type: "button", onclick: () => this.activate(number) }, one.series.title)));
    this.grid = element("div", { class: "grid" }, this.viewports.map(({ node }) => node));
    this.node = element("div", { class: "viewer" }, this.tabs, this.grid);
    this.arrange();
  }

  #stack(series) {
    return new Stack(series, () => getJson(examPath(this.exam.key), this.signal));
  }

  #viewport(series, number) {
    const viewport = new Viewport(series, this.#stack(series), {
      ...this.callbacks,
      onSlice: (one) => {
        one.strip.setIndex(one.index);
        this.#need(one);
        this.#showCrosses();
        this.callbacks.onSlice(one);
      },
      onPoint: (one, at, follow) => {
        this.pointed = at && { viewport: one, at };
        if (follow) this.#follow(one, at);
        this.#showCrosses();
      },
      onActive: () => this.active !== number && this.activate(number, { focus: false }),
      onMaximise: () => this.maximise(number),
    });
    viewport.strip = new Strip(series, (index) => {
      this.activate(number);
      viewport.choose(index);
    });
    viewport.strip.setScores(null, 0, -1, "");
    viewport.strip.setIndex(viewport.index);
    viewport.texts.exam.textContent = this.callbacks.caption(this.exam);
    viewport.node = element("section", { class: "viewport", "aria-label": series.title }, viewport.screen, viewport.strip.node);
    return viewport;
  }

  get current() {
    return this.viewports[this.active];
  }

  remove() {
    for (const viewport of this.viewports) {
      viewport.remove();
      viewport.strip.remove();
    }
  }

  // layout

  setLayout(layout) {
    this.layout = layout in LAYOUTS ? layout : defaultLayout(this.viewports.length);
    this.maximised = false;
    this.arrange();
  }

  maximise(number = this.active) {
    this.maximised = !this.maximised;
    this.activate(number);
  }

  arrange() {
    const [columns, cells] = this.maximised ? LAYOUTS[1] : LAYOUTS[this.layout];
    const first = Math.floor(this.active / cells) * cells;
    const shown = Math.min(cells, this.viewports.length - first);
    this.viewports.forEach(({ node }, number) => {
      node.hidden = number < first || number >= first + cells;
      node.classList.toggle("active", number === this.active);
    });
    const used = Math.min(columns, Math.max(shown, 1));
    place(this.grid, { "--columns": used, "--rows": Math.ceil(Math.max(shown, 1) / used) });
    this.tabs.hidden = shown === this.viewports.length;
    [...this.tabs.children].forEach((tab, number) =>
      tab.setAttribute("aria-pressed", String(number === this.active)));
  }

  /** Makes a viewport the one that keys act on. */
  activate(number, { focus = true } = {}) {
    this.active = Math.min(this.viewports.length - 1, Math.max(0, number));
    this.arrange();
    if (focus) this.focus();
    this.callbacks.onActive(this.current);
  }

  /** Puts the focus on the active viewport, so that keys work. */
  focus() {
    this.current.canvas.focus({ preventScroll: true });
  }

  redraw() {
    for (const viewport of this.viewports) {
      viewport.draw();
      viewport.strip.draw();
    }
  }

  // linked cursors

  /** Viewports -> place in their stacks of a point of another one, for those whose positions can be compared. */
  #linked(viewport, at) {
    const frame = viewport.series.position?.frame;
    const others = this.viewports.filter((one) => one !== viewport && one.series.position?.frame === frame);
    if (frame === undefined || !others.length) return [];
    const point = viewport.locate(at);
    return others.map((one) => [one, one.find(point)]);
  }

  /** Marks the point under the pointer in the other series. */
  #showCrosses() {
    const places = new Map(this.pointed ? this.#linked(this.pointed.viewport, this.pointed.at) : []);
    for (const one of this.viewports) one.setCross(places.get(one) ?? null);
  }

  /** Shows the slices through a point in the other series; returns them. */
  #follow(viewport, at) {
    const shown = this.#linked(viewport, at)
      .filter(([one, { slice }]) => slice > -0.5 && slice < one.stack.slices - 0.5)
      .map(([one, { slice }]) => [one, Math.round(slice)]);
    for (const [one, slice] of shown) {
      one.moved = true;
      one.show(slice);
    }
    return shown.map(([one]) => one);
  }

  /** Shows the slices through the pointer, or through the middle of the active viewport. */
  link() {
    const { viewport, at } = this.pointed ?? { viewport: this.current, at: this.current.pixelAt({ x: 0, y: 0 }) };
    const others = this.#follow(viewport, at);
    this.callbacks.onLinked?.(others);
  }

  // loading

  /** Shows slices at once, before the complete stacks are loaded. Series -> index. */
  async showFirst(slices) {
    const order = [this.current, ...this.viewports.filter((one) => one !== this.current)];
    await Promise.all(
      order.map(async (viewport) => {
        if (!viewport.moved) viewport.show(slices[viewport.series.name] ?? viewport.index);
        await this.#need(viewport);
      }),
    );
  }

  /** Loads the slice that a viewport shows, unless it is there. */
  async #need(viewport) {
    const { stack, index } = viewport;
    if (stack.has(index)) return;
    try {
      await stack.loadSlice(index, this.signal);
      viewport.draw();
    } catch (error) {
      this.callbacks.onError(error);
    }
  }

  /** Loads all slices of all series, the active one first. */
  async loadAll() {
    const order = [this.current, ...this.viewports.filter((one) => one !== this.current)];
    for (const viewport of order) {
      await viewport.stack.load(this.signal, () => viewport.draw());
    }
  }

  // commands

  /** Carries out a command of the table; returns whether it is one of the viewer's. */
  run(command) {
    const view = this.current;
    const way = Math.min(view.screen.clientWidth, view.screen.clientHeight) / 10;
    const last = view.stack.slices - 1;
    const moves = {
      "previous-slice": () => view.step(-1),
      "next-slice": () => view.step(1),
      "ten-back": () => view.step(-10),
      "ten-on": () => view.step(10),
      "first-slice": () => view.choose(0),
      "last-slice": () => view.choose(last),
      "previous-viewport": () => this.activate((this.active + this.viewports.length - 1) % this.viewports.length),
      "next-viewport": () => this.activate((this.active + 1) % this.viewports.length),
      maximise: () => this.maximise(),
      link: () => this.link(),
      cine: () => view.toggleCine(),
      reset: () => view.reset(),
      invert: () => view.invert(),
      "zoom-in": () => view.zoomBy(1.25),
      "zoom-out": () => view.zoomBy(0.8),
      "pan-up": () => view.panBy(0, -way),
      "pan-down": () => view.panBy(0, way),
      "pan-left": () => view.panBy(-way, 0),
      "pan-right": () => view.panBy(way, 0),
      brighter: () => view.windowBy(0, -10),
      darker: () => view.windowBy(0, 10),
      "more-contrast": () => view.windowBy(-15, 0),
      "less-contrast": () => view.windowBy(15, 0),
    };
    moves[command]?.();
    return command in moves;
  }
}

/** Whether keys belong to a control that has the focus, such as a text field. */
export function typing(target, key) {
  if (!(target instanceof HTMLElement)) return false;
  if (target.closest("dialog[open]")) return true;
  if (target.matches("textarea, select, input:not([type=checkbox]):not([type=radio]):not([type=range])")) return true;
  if (target.matches("input[type=range], input[type=radio]")) return key.startsWith("Arrow") || key === "Home" || key === "End" || key.startsWith("Page");
  return target.matches("button, a, summary, input, [role=button]") && (key === " " || key === "Enter");
}

/** The command of a key event, or undefined where the key belongs to something else. */
export function commandOf(event) {
  if (typing(event.target, event.key)) return undefined;
  const onViewport = event.target instanceof HTMLCanvasElement;
  // WCAG 2.1.4: single keys can be limited to the viewports
  if (!onViewport && settings.get("keys", "everywhere") !== "everywhere") return undefined;
  return keyBinding(event)?.command;
}

