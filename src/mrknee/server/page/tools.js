/** Buttons for what keys and gestures do: layouts, window, zoom, position. */

import { element } from "./dom.js";
import { LAYOUTS } from "./viewer.js";

const ACTIONS = [
  ["zoom-out", "\u2212", "Zoom out"],
  ["zoom-in", "+", "Zoom in"],
  ["darker", "\u25d0\u2212", "Darker"],
  ["brighter", "\u25d0+", "Brighter"],
  ["less-contrast", "\u25d1\u2212", "Less contrast"],
  ["more-contrast", "\u25d1+", "More contrast"],
  ["pan-left", "\u2190", "Move the image left"],
  ["pan-right", "\u2192", "Move the image right"],
  ["pan-up", "\u2191", "Move the image up"],
  ["pan-down", "\u2193", "Move the image down"],
];

/**
 * @param {import("./viewer.js").Viewer} viewer
 * @param {(command: string) => void} onCommand
 * @param {(layout: string) => void} onLayout
 */
export function imageTools(viewer, onCommand, onLayout) {
  const button = (command, text, label) =>
    element("button", { type: "button", title: label, "aria-label": label, onclick: () => onCommand(command) }, text);
  const layouts = Object.keys(LAYOUTS)
    .sort((one, other) => LAYOUTS[one][1] - LAYOUTS[other][1])
    .map((name) => element("button", { type: "button", "data-layout": name, "aria-label": `Layout ${name}`, onclick: () => onLayout(name) },
      name.replace("x", "\u00d7")));
  const node = element("div", { class: "tools", role: "toolbar", "aria-label": "Image" },
    element("span", { class: "group", role: "group", "aria-label": "Layout" }, element("span", { class: "label" }, "Layout"), layouts),
    element("span", { class: "group" }, button("maximise", "Maximise", "Maximise the viewport, restore"),
      button("reset", "Reset", "Reset window, zoom and position"), button("invert", "Invert", "Invert grey values"),
      button("cine", "Cine", "Cine: start, stop")),
    element("details", { class: "group" }, element("summary", {}, "Adjust"),
      element("span", { class: "group" }, ACTIONS.map(([command, text, label]) => button(command, text, label)))));
  return {
    node,
    setLayout(shown) {
      for (const one of layouts) one.setAttribute("aria-pressed", String(one.dataset.layout === shown));
    },
  };
}
