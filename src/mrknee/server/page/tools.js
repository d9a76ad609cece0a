/** Buttons for what keys and gestures do: layouts, window, zoom, position. */

import { element } from "./dom.js";
import { layoutsFor } from "./viewer.js";

/** Group -> its buttons: command, text, label. */
const ADJUSTMENTS = {
  Zoom: [["zoom-out", "\u2212", "Zoom out"], ["zoom-in", "+", "Zoom in"]],
  Brightness: [["darker", "\u2212", "Darker"], ["brighter", "+", "Brighter"]],
  Contrast: [["less-contrast", "\u2212", "Less contrast"], ["more-contrast", "+", "More contrast"]],
  Move: [
    ["pan-left", "\u2190", "Move the image left"],
    ["pan-right", "\u2192", "Move the image right"],
    ["pan-up", "\u2191", "Move the image up"],
    ["pan-down", "\u2193", "Move the image down"],
  ],
};

/**
 * @param {import("./viewer.js").Viewer} viewer
 * @param {(command: string) => void} onCommand
 * @param {(layout: string) => void} onLayout
 */
export function imageTools(viewer, onCommand, onLayout) {
  const button = (command, text, label) =>
    element("button", { type: "button", title: label, "aria-label": label, onclick: () => onCommand(command) }, text);
  const group = (name, content) =>
    element("span", { class: "group", role: "group", "aria-label": name }, element("span", { class: "label" }, name), content);
  const layouts = layoutsFor(viewer.viewports.length)
    .map((name) => element("button", { type: "button", "data-layout": name, "aria-label": `Layout ${name}`, onclick: () => onLayout(name) },
      name.replace("x", "\u00d7")));
  const linked = viewer.viewports.some(({ series }) => series.position);
  const node = element("div", { class: "tools", role: "toolbar", "aria-label": "Image" },
    group("Layout", layouts),
    element("span", { class: "group" }, button("maximise", "Maximise", "Maximise the viewport, restore"),
      button("reset", "Reset", "Reset window, zoom and position"), button("invert", "Invert", "Invert grey values"),
      button("cine", "Cine", "Cine: start, stop"),
      linked && button("link", "Link", "Other series: the slices through the image's middle")),
    element("details", { class: "group" }, element("summary", {}, "Zoom, brightness, contrast"),
      Object.entries(ADJUSTMENTS).map(([name, buttons]) =>
        group(name, buttons.map(([command, text, label]) => button(command, text, label))))));
  return {
    node,
    setLayout(shown) {
      for (const one of layouts) one.setAttribute("aria-pressed", String(one.dataset.layout === shown));
    },
  };
}
