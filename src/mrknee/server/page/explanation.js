/** An exam's prediction and its decomposition, as the service returned them. */

import { pointsOf } from "./findings.js";
import { probability } from "./words.js";

export class Explanation {
  /** @param {Object} answer of /explanation, or of /prediction (then there are no maps) */
  constructor(answer, model) {
    Object.assign(this, { answer, model });
    this.maps = answer.maps ?? null;
    this.cell_scale = answer.cell_scale ?? 0;
    this.probabilities = Object.fromEntries(
      model.findings.map((name) => [name, answer.findings[name].probability]));
  }

  finding(name) {
    return this.answer.findings[name];
  }

  probabilityText(name) {
    return probability(this.probabilities[name]);
  }

  /** The operating points of a finding that have a threshold. */
  points(name) {
    return pointsOf(this.model, name);
  }

  /** The threshold of calls: the first operating point; 0.5 if none was fitted. */
  threshold(name) {
    return this.points(name)[0]?.threshold ?? 0.5;
  }

  /** Whether the finding is called present. */
  positive(name) {
    return this.probabilities[name] >= this.threshold(name);
  }

  /** 1 if slices that add to the logit decide, -1 if the finding is called absent. */
  sign(name) {
    const lowered = this.maps && this.most(name, -1)?.score < 0;
    return this.positive(name) || !lowered ? 1 : -1;
  }

  /** The same for one series: the opposite if none of its slices acts in that direction. */
  signOf(name, series) {
    const sign = this.sign(name);
    const scores = this.scores(name, series) ?? [];
    return scores.some((score) => sign * score > 0) || !scores.some((score) => sign * score < 0) ? sign : -sign;
  }

  /** @returns {number[]|null} score of each slice; null if the network does not read the series */
  scores(name, series) {
    return this.maps?.[series] ? this.finding(name)?.slices[series] ?? null : null;
  }

  largestScore(name) {
    return Math.max(0, ...Object.values(this.finding(name).slices ?? {}).flat().map(Math.abs));
  }

  /** The slices that the network reads, from the most decisive one on. */
  ordered(name, series) {
    const scores = this.scores(name, series);
    if (!scores) return [];
    const sign = this.signOf(name, series);
    return [...this.maps[series].slices_read].sort((one, other) => sign * (scores[other] - scores[one]) || one - other);
  }

  /** The slice of all series that adds most (sign 1) or takes most (sign -1). */
  most(name, sign) {
    const found = this.finding(name);
    return (sign > 0 ? found.most_raising_slice : found.most_lowering_slice) ?? null;
  }

  /** The finding to show first: the one furthest above its threshold. */
  mostStriking() {
    const excess = (name) => this.probabilities[name] - this.threshold(name);
    return [...this.model.findings].sort((one, other) => excess(other) - excess(one))[0];
  }
}
