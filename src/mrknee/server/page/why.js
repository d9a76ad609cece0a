/** The panels beside the viewports that say why. */

import { element } from "./dom.js";
import { waterfall } from "./waterfall.js";
import { capital, decimals, ruleText, signed } from "./words.js";

const NOT_ADDING = "The parts of this explanation do not add up to the logit to within rounding.";

/** The probability, what it means at the operating points, the decisive slice, and the sum. */
export function answerPanel(explanation, name, exam, onJump) {
  const { model } = explanation;
  const finding = explanation.finding(name);
  const title = model.titles[name] ?? name;
  const called = explanation.points(name).length > 0;
  const positive = called && explanation.positive(name);
  return element("section", { class: "panel answer", "aria-labelledby": "answer-title" },
    element("h2", { id: "answer-title" }, capital(title)),
    element("p", { class: positive ? "probability positive" : "probability" }, explanation.probabilityText(name)),
    element("p", { class: "call" }, callText(explanation, name), labelText(exam, name, called ? positive : null)),
    explanation.maps && decisiveText(explanation, name, exam, onJump),
    explanation.maps && waterfall({ ...finding, calibrated: finding.calibrated }, {
      title, series: exam.series, points: explanation.points(name),
    }),
    finding.uncalibrated && element("p", { class: "hint" }, `${capital(finding.uncalibrated)}.`),
    explanation.answer.adds_up === false && element("p", { class: "warning" }, NOT_ADDING));
}

function callText(explanation, name) {
  const [point] = explanation.points(name);
  if (!point) return "No operating point was fitted.";
  const [word, side] = explanation.positive(name) ? ["Present", "at or above"] : ["Absent", "below"];
  const p = explanation.probabilities[name];
  const digits = decimals(p, point.threshold);
  const numbers = `${digits > 2 ? `${p.toFixed(digits)} is ` : ""}${side} the threshold ${point.threshold.toFixed(digits)}`;
  return element("span", {}, element("strong", {}, word), `: ${numbers} (${ruleText(point.rule)}).`);
}

function labelText(exam, name, positive) {
  const label = exam.labels?.[name];
  if (label === null || label === undefined) return null;
  if (label !== 0 && label !== 1) return ` Label: ${label.toFixed(2)}.`;
  const text = ` Label: ${label === 1 ? "present" : "absent"}`;
  if (positive === null) return `${text}.`;
  const right = (label === 1) === positive;
  return [text, ", ", element("span", { class: right ? "right nowrap" : "wrong nowrap" }, right ? "\u2713 right" : "\u2717 wrong"), "."];
}

function decisiveText(explanation, name, exam, onJump) {
  const sign = explanation.sign(name);
  const place = explanation.most(name, sign);
  const series = exam.series.find((one) => one.name === place.series);
  const text = `${series.title} ${place.slice + 1}`;
  return element("p", { class: "decisive" }, "Decisive slice: ",
    element("button", { type: "button", class: "jump", onclick: () => onJump(place) }, text),
    ` of ${series.slices}, `, element("span", { class: sign > 0 ? "raises" : "lowers" }, signed(place.score)),
    ` of the logit ${signed(explanation.finding(name).logit)}. `,
    element("span", { class: "hint" }, "The ring marks the cell of each series with the largest contribution: orange adds to the logit, blue takes from it."));
}

/** Switches of heat map and outlines, and the colour bar. */
export function heatPanel(view) {
  const { scale } = view.heat;
  const masks = view.masks.any(view.finding);
  return element("section", { class: "panel", "aria-labelledby": "heat-title" },
    element("h2", { id: "heat-title" }, "Heat map"),
    element("div", { class: "row" },
      check("heat", "Show", view.showHeat, (shown) => view.setHeat({ shown })),
      element("label", { class: "slider" }, "Opacity ",
        element("input", { type: "range", min: 0.1, max: 1, step: 0.05, value: view.opacity,
          oninput: (event) => view.setHeat({ opacity: Number(event.target.value) }) }))),
    element("div", { class: "colour-bar", role: "img",
      "aria-label": `Colours from blue, ${signed(-scale, 3)}, to orange, ${signed(scale, 3)} logits per cell` }),
    element("p", { class: "scale" }, element("span", {}, signed(-scale, 3)),
      element("span", {}, "effect of each cell on the logit"), element("span", {}, signed(scale, 3))),
    element("p", { class: "hint" }, "Orange adds to the logit, blue takes from it; one scale for the exam. Hold ",
      element("kbd", {}, "H"), " to hide."),
    masks && element("div", { class: "row" }, check("outline", "Lesion outline", view.showOutline, (outline) => view.setHeat({ outline }))),
    masks && view.hit);
}

function check(name, text, checked, onChange) {
  return element("label", { class: "check" },
    element("input", { type: "checkbox", name, checked, onchange: (event) => onChange(event.target.checked) }), text);
}

/** What is unusual about the exam, and what the numbers are not. */
export function remarksPanel(explanation, exam) {
  const texts = new Set([...exam.remarks, ...explanation.answer.remarks].map(({ text, series }) => (series ? `${capital(series)}: ${text}` : capital(text))));
  const missing = exam.missing_series;
  return element("section", { class: "panel remarks", "aria-labelledby": "remarks-title" },
    element("h2", { id: "remarks-title" }, "About this exam"),
    missing.length > 0 && element("p", { class: "warning" }, `Not read: ${missing.join(", ")}.`),
    [...texts].map((text) => element("p", { class: "warning" }, text.endsWith(".") ? text : `${text}.`)),
    element("p", { class: "hint" }, `Model ${explanation.model.model}. `, element("strong", {}, "Research use only"), ": the numbers are not a diagnosis."));
}
