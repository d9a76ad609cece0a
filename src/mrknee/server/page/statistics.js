/** Statistics of the quiz. */

const Z = 1.959963984540054; // 97.5 % quantile of the normal distribution

/**
 * Wilson's 95 % interval of a proportion.
 * @returns {{value: number, low: number, high: number}} NaN without trials
 */
export function wilson(successes, trials) {
  if (trials === 0) return { value: NaN, low: NaN, high: NaN };
  const share = successes / trials;
  const square = (Z * Z) / trials;
  const centre = (share + square / 2) / (1 + square);
  const half = (Z * Math.sqrt((share * (1 - share)) / trials + square / (4 * trials))) / (1 + square);
  return { value: share, low: Math.max(0, centre - half), high: Math.min(1, centre + half) };
}
