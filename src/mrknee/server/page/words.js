/** Numbers and names as text. */

const MINUS = "\u2212";

/** A number with its sign: "+0.82", "−0.82"; "0.00" has none. */
export function signed(value, digits = 2) {
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return text;
  return (value < 0 ? MINUS : "+") + text;
}

/** A probability with two decimals, never 0 or 1: "0.73", ">0.99", "<0.01". */
export function probability(value) {
  if (value >= 0.995) return ">0.99";
  if (value < 0.005) return "<0.01";
  return value.toFixed(2);
}

/** A share in percent with its interval: "91 % (80–96 %)". */
export function percent(value, low, high) {
  const whole = (share) => (100 * share).toFixed(0);
  return `${whole(value)} % (${whole(low)}\u2013${whole(high)} %)`;
}

export function capital(text) {
  return text.charAt(0).toUpperCase() + text.slice(1);
}

/** Decimals by which a probability and a threshold differ in print: 2, or 4 if they are close. */
export function decimals(p, threshold) {
  return p.toFixed(2) === threshold.toFixed(2) ? 4 : 2;
}

/** A threshold's rule for display: "sensitivity ≥ 0.90". */
export function ruleText(rule) {
  return rule.replace(">=", "\u2265");
}

export function count(number, one, many = `${one}s`) {
  return `${number.toLocaleString("en")} ${number === 1 ? one : many}`;
}

/** A duration in words: "40 s", "12 min", "3 h". */
export function duration(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${Math.round(seconds / 3600)} h`;
}

/** What a score does: "adds 0.8 to the ACL tear logit", "takes 0.3 from the ACL tear logit". */
export function effect(score, title, digits = 2) {
  const size = Math.abs(score).toFixed(digits);
  if (Number(size) === 0) return `adds nothing to the ${title} logit`;
  return score > 0 ? `adds ${size} to the ${title} logit` : `takes ${size} from the ${title} logit`;
}
