/** The switch of findings: one button each, with key, probability and a bar. */

import { element, place } from "./dom.js";
import { capital, probability } from "./words.js";

/** The operating points of a finding that have a threshold. */
export function pointsOf(model, name) {
  return (model.operating_points[name] ?? []).filter(({ threshold }) => threshold !== null);
}

/**
 * @param {Object} model
 * @param {(finding: string) => void} onSelect
 */
export function findingSwitch(model, onSelect) {
  const buttons = new Map(
    model.findings.map((name, number) => {
      const value = element("span", { class: "value" }, "\u2013");
      const bar = element("span", { class: "bar" }, element("span", { class: "fill" }));
      const title = capital(model.titles[name] ?? name);
      const key = number < 9 ? element("kbd", { "aria-hidden": "true" }, number + 1) : null;
      const button = element("button", { type: "button", "aria-pressed": "false", onclick: () => onSelect(name) },
        key, element("span", { class: "name" }, title), value, bar);
      return [name, { button, value, fill: bar.firstChild }];
    }));
  const node = element("div", { class: "findings", role: "group", "aria-label": "Finding" },
    [...buttons.values()].map(({ button }) => button));
  let shown = {};
  const set = (name, p, other = null) => {
    const { value, fill, button } = buttons.get(name);
    value.textContent = other === null ? probability(p) : `${probability(p)} \u2192 ${probability(other)}`;
    place(fill, { width: `${100 * (other ?? p)}%` });
    const [point] = pointsOf(model, name);
    button.classList.toggle("positive", Boolean(point) && (other ?? p) >= point.threshold);
  };
  return {
    node,
    select(finding) {
      for (const [name, { button }] of buttons) button.setAttribute("aria-pressed", String(name === finding));
      const { button } = buttons.get(finding);
      node.scrollLeft = button.offsetLeft - node.offsetLeft - (node.clientWidth - button.offsetWidth) / 2;
    },
    setProbabilities(probabilities) {
      shown = probabilities;
      for (const [name, p] of Object.entries(probabilities)) set(name, p);
    },
    /** Shows other probabilities beside the exam's own; null: none. */
    setWhatIf(probabilities) {
      for (const [name, p] of Object.entries(shown)) set(name, p, probabilities?.[name] ?? null);
    },
  };
}
