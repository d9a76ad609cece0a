/** The help: all keys and gestures, made from the table of bindings, and the settings of the page. */

import { GESTURES, KEYS } from "./bindings.js";
import { element } from "./dom.js";
import { settings } from "./state.js";

const NAMES = { " ": "Space", ArrowUp: "\u2191", ArrowDown: "\u2193", ArrowLeft: "\u2190", ArrowRight: "\u2192", PageUp: "Page up", PageDown: "Page down" };

function keyText({ keys, shift, command }) {
  const shown = command === "finding" ? ["1", "9"] : keys.slice(0, 1);
  const nodes = shown.flatMap((key, number) => [
    number > 0 && " to ",
    element("kbd", {}, (shift ? "Shift " : "") + (NAMES[key] ?? (key.length === 1 ? key.toUpperCase() : key)))]);
  return nodes.filter(Boolean);
}

function table(caption, rows) {
  return element("table", {}, element("caption", {}, caption),
    element("tbody", {}, rows.map(([left, right]) => element("tr", {}, element("th", { scope: "row" }, left), element("td", {}, right)))));
}

/** @returns {HTMLDialogElement} */
export function helpDialog() {
  const groups = [...new Set(KEYS.map(({ group }) => group))];
  const everywhere = element("input", { type: "checkbox", checked: settings.get("keys", "everywhere") === "everywhere",
    onchange: (event) => settings.set("keys", event.target.checked ? "everywhere" : "viewports") });
  const dialog = element("dialog", { class: "help", "aria-labelledby": "help-title" },
    element("header", {}, element("h2", { id: "help-title" }, "Keys and gestures"),
      element("button", { type: "button", "aria-label": "Close", onclick: () => dialog.close() }, "\u00d7")),
    element("div", { class: "tables" },
      table("Mouse, trackpad, touch", GESTURES.map(({ name, help }) => [name, help])),
      groups.map((name) => table(name, KEYS.filter(({ group }) => group === name).map((one) => [keyText(one), one.help])))),
    element("label", { class: "check" }, everywhere, "Single keys act everywhere on the page, not only while a viewport has the focus"));
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());
  return dialog;
}
