/** How a probability comes about: bias + series = logit, then the calibrated probability. */

import { drawing } from "./dom.js";
import { capital, probability, ruleText, signed } from "./words.js";

const WIDTH = 340;
const LABEL = 96;
const NUMBER = 52;
const ROW = 24;

/**
 * @param {Object} finding of the explanation: bias, series, logit, probability
 * @param {{title: string, series: Array<{name: string, title: string}>,
 *   points: Array<{rule: string, threshold: number|null}>}} names
 * @returns {SVGElement}
 */
export function waterfall(finding, { title, series, points }) {
  const terms = [{ label: "Bias", value: finding.bias }];
  for (const { name, title: label } of series) {
    if (name in finding.series) terms.push({ label, value: finding.series[name] });
  }
  let sum = 0;
  const bars = terms.map(({ label, value }) => {
    const from = sum;
    sum += value;
    return { label, value, from, to: sum };
  });
  bars.push({ label: "Logit", value: finding.logit, from: 0, to: finding.logit, total: true });
  const ends = bars.flatMap(({ from, to }) => [from, to]).concat(0);
  const [low, high] = [Math.min(...ends), Math.max(...ends)];
  const span = high - low || 1;
  const x = (value) => LABEL + ((value - low) / span) * (WIDTH - LABEL - NUMBER);
  const rows = bars.map((bar, row) => barRow(bar, row, x, bars));
  const top = bars.length * ROW + 14;
  const height = top + 62;
  const zero = drawing("line", { class: "zero", x1: x(0), x2: x(0), y1: 2, y2: bars.length * ROW - 2 });
  return drawing(
    "svg",
    { class: "waterfall", viewBox: `0 0 ${WIDTH} ${height}`, role: "img", "aria-label": inWords(bars, finding, title, points) },
    zero,
    rows,
    track(finding, points, top),
  );
}

function barRow(bar, row, x, bars) {
  const y = row * ROW;
  const [start, end] = [Math.min(x(bar.from), x(bar.to)), Math.max(x(bar.from), x(bar.to))];
  const kind = bar.total ? "total" : bar.value < 0 ? "lowers" : "raises";
  const next = bars[row + 1];
  return drawing(
    "g",
    { class: bar.total ? "row total" : "row" },
    drawing("text", { x: 0, y: y + 16 }, shortened(bar.label)),
    drawing("rect", { class: kind, x: start, y: y + 5, width: Math.max(1.5, end - start), height: ROW - 10, rx: 1.5 }),
    next && !next.total && drawing("line", { class: "step", x1: x(bar.to), x2: x(bar.to), y1: y + ROW - 5, y2: y + ROW + 5 }),
    drawing("text", { class: "number", x: WIDTH, y: y + 16 }, signed(bar.value)),
  );
}

function shortened(label) {
  return label.length > 15 ? `${label.slice(0, 14)}\u2026` : label;
}

/** The probability from 0 to 1, with the operating points. */
function track(finding, points, top) {
  const [left, width] = [6, WIDTH - 12];
  const at = (share) => left + share * width;
  const p = finding.probability;
  const known = points.filter(({ threshold }) => threshold !== null && threshold >= 0 && threshold <= 1);
  return drawing(
    "g",
    { class: "track" },
    drawing("text", { x: 0, y: top + 10 }, finding.calibrated === false ? "Probability (not calibrated)" : "Calibrated probability"),
    drawing("text", { class: "number strong", x: WIDTH, y: top + 10 }, probability(p)),
    drawing("rect", { class: "rail", x: left, y: top + 20, width, height: 10, rx: 5 }),
    drawing("rect", { class: "filled", x: left, y: top + 20, width: Math.max(2, p * width), height: 10, rx: 5 }),
    known.map(({ threshold, rule }) =>
      drawing("line", { class: "point", x1: at(threshold), x2: at(threshold), y1: top + 16, y2: top + 34 },
        drawing("title", {}, `${ruleText(rule)}: positive at or above ${threshold.toFixed(3)}`)),
    ),
    drawing("circle", { class: "now", cx: at(p), cy: top + 25, r: 6 }),
    pointLabels(known, at, top),
  );
}

/** The rules below their marks, as far apart as their texts need. */
function pointLabels(points, at, top) {
  const sorted = [...points].sort((one, other) => one.threshold - other.threshold);
  let free = 0;
  return sorted.map(({ rule, threshold }) => {
    const text = `${ruleText(rule)} ${threshold.toFixed(2)}`;
    const size = text.length * 5.4;
    const start = Math.max(free, Math.min(at(threshold) - size / 2, WIDTH - size));
    free = start + size + 10;
    return start + size <= WIDTH + 1 && drawing("text", { class: "rule", x: start, y: top + 48 }, text);
  });
}

function inWords(bars, finding, title, points) {
  const parts = bars.filter(({ total }) => !total).map(({ label, value }) => `${label} ${signed(value)}`);
  const rules = points
    .filter(({ threshold }) => threshold !== null)
    .map(({ rule, threshold }) => `${ruleText(rule)} at ${threshold.toFixed(2)}`);
  const thresholds = rules.length ? `; operating points: ${rules.join(", ")}` : "";
  return `${capital(title)}: ${parts.join(", ")}; logit ${signed(finding.logit)}; probability ${probability(finding.probability)}${thresholds}`;
}
