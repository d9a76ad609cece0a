/** What if: the prediction without a series or without slices, computed by the service. */

import { cancelled, examPath, Problem, sendJson } from "./api.js";
import { element } from "./dom.js";
import { capital, decimals, probability, signed } from "./words.js";

export class WhatIf {
  /**
   * @param {string} key
   * @param {Object} exam
   * @param {Object} model
   * @param {() => void} onChange after other parts were left out, and with each result
   * @param {AbortSignal} signal
   */
  constructor(key, exam, model, onChange, signal) {
    Object.assign(this, { key, exam, model, onChange, signal });
    this.series = new Set();
    this.slices = new Map(exam.series.map(({ name }) => [name, new Set()]));
    this.result = null;
    this.problem = null;
    this.request = null;
    this.viewport = null;
    this.output = element("div", { class: "what-if-result", role: "status" });
    this.chips = element("div", { class: "chips" });
    this.button = element("button", { type: "button", onclick: () => this.toggleSlice(this.viewport) });
    this.clear = element("button", { type: "button", onclick: () => this.reset() }, "Put everything back");
  }

  /** The slices of a series that are left out; all of them if the series is. */
  slicesOf({ name, slices }) {
    return this.series.has(name) ? new Set(Array.from({ length: slices }, (_, at) => at)) : this.slices.get(name);
  }

  get empty() {
    return this.series.size === 0 && [...this.slices.values()].every(({ size }) => size === 0);
  }

  /** The panel for a finding. */
  panel(finding, explanation) {
    Object.assign(this, { finding, explanation });
    this.boxes = this.exam.series.map(({ name, title }) =>
      element("label", { class: "check" },
        element("input", { type: "checkbox", name: "without", value: name, checked: this.series.has(name), onchange: () => this.toggleSeries(name) }),
        title));
    this.#show();
    return element("section", { class: "panel what-if", "aria-labelledby": "what-if-title" },
      element("h2", { id: "what-if-title" }, "What if\u2026"),
      element("fieldset", {}, element("legend", {}, "Leave out a series"), this.boxes),
      element("div", { class: "row" }, this.button, this.clear),
      this.chips, this.output);
  }

  toggleSeries(name) {
    if (!this.series.delete(name)) this.series.add(name);
    this.#changed();
  }

  toggleSlice(viewport) {
    if (!viewport) return;
    const slices = this.slices.get(viewport.series.name);
    if (!slices.delete(viewport.index)) slices.add(viewport.index);
    this.#changed();
  }

  reset() {
    this.series.clear();
    for (const slices of this.slices.values()) slices.clear();
    this.#changed();
  }

  /** Another slice is shown. */
  refresh(viewport) {
    this.viewport = viewport;
    const out = this.slices.get(viewport.series.name).has(viewport.index);
    const verb = out ? "Put back" : "Leave out";
    this.button.textContent = `${verb} ${viewport.series.title} ${viewport.index + 1}`;
  }

  async #changed() {
    this.request?.abort(new DOMException("replaced", "AbortError"));
    this.request = new AbortController();
    if (this.viewport) this.refresh(this.viewport);
    this.problem = null;
    if (this.empty) this.result = null;
    this.#show();
    this.onChange();
    if (this.empty) return;
    if (this.exam.series.every((series) => this.slicesOf(series).size === series.slices)) {
      this.result = null;
      this.problem = new Problem("At least one slice must remain");
      this.#show();
      this.onChange();
      return;
    }
    this.output.classList.add("busy");
    const body = {
      without_series: [...this.series],
      without_slices: Object.fromEntries(
        [...this.slices].filter(([name, { size }]) => size > 0 && !this.series.has(name)).map(([name, slices]) => [name, [...slices].sort((one, other) => one - other)])),
    };
    try {
      const signal = AbortSignal.any([this.signal, this.request.signal]);
      this.result = await sendJson("POST", examPath(this.key, "what-if"), body, signal);
    } catch (error) {
      if (cancelled(error)) return;
      this.result = null;
      this.problem = error;
    }
    this.output.classList.remove("busy");
    this.#show();
    this.onChange();
  }

  #show() {
    for (const label of this.boxes ?? []) {
      const box = label.querySelector("input");
      box.checked = this.series.has(box.value);
    }
    this.clear.hidden = this.empty;
    const left = this.exam.series.flatMap((series) =>
      [...this.slices.get(series.name)].sort((one, other) => one - other).map((index) => [series, index]));
    this.chips.replaceChildren(...left.map(([{ name, title }, index]) =>
      element("button", { type: "button", class: "chip", "aria-label": `Put back ${title} ${index + 1}`,
        onclick: () => {
          this.slices.get(name).delete(index);
          this.#changed();
        } }, `${title} ${index + 1} \u00d7`)));
    this.output.replaceChildren(...this.#resultText());
  }

  #resultText() {
    if (this.problem) return [element("p", { class: "warning" }, (this.problem.sentences ?? [String(this.problem)]).join(" "))];
    if (!this.result) return [element("p", { class: "hint" }, "The service computes the exam again without the parts that you leave out.")];
    const name = this.finding;
    const before = this.explanation.finding(name);
    const after = this.result;
    return [
      element("p", {}, `${capital(this.model.titles[name] ?? name)}: ${probability(before.probability)} \u2192 `,
        element("strong", { class: "now" }, probability(after.probabilities[name])), this.#callText(name)),
      element("p", { class: "hint" }, `Logit ${signed(before.logit)} \u2192 ${signed(after.logits[name])} (${signed(after.logits[name] - before.logit)}). Without some parts the network weighs the others anew, so this need not be the sum of their scores.`),
    ];
  }

  /** What the new probability means at the first operating point. */
  #callText(name) {
    if (!this.explanation.points(name).length) return "";
    const threshold = this.explanation.threshold(name);
    const p = this.result.probabilities[name];
    const word = p >= threshold ? "present" : "absent";
    const digits = decimals(p, threshold);
    return `, ${word} (${digits > 2 ? `${p.toFixed(digits)}, ` : ""}threshold ${threshold.toFixed(digits)})`;
  }
}
