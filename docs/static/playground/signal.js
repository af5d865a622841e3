// Exact signal and noise of one pixel's policy gradient, where the score of a label map is a function of its accuracy.
"use strict";
window.playground = window.playground || {};

(function (playground) {
  /** Scores by name: accuracy in [0, 1] and a parameter -> score. */
  const SHAPES = {
    accuracy: { score: (a) => a },
    power: { score: (a, t) => Math.pow(a, t), label: "exponent", min: 0.25, max: 8, step: 0.25, start: 3 },
    threshold: { score: (a, t) => (a >= t - 1e-9 ? 1 : 0), label: "threshold", min: 0, max: 1, step: 0.01, start: 0.75 },
    stars: { score: (a, t) => Math.round(a * (t - 1)) / (t - 1), label: "stars", min: 2, max: 10, step: 1, start: 5 },
  };

  /** Chances of 0..n successes in n draws. */
  function binomial(n, p) {
    const chances = new Float64Array(n + 1);
    if (p <= 0 || p >= 1) {
      chances[p <= 0 ? 0 : n] = 1;
      return chances;
    }
    const mode = Math.min(n, Math.floor((n + 1) * p)); // from the largest one outwards nothing overflows
    chances[mode] = 1;
    let total = 1;
    for (let m = mode; m > 0; m--) {
      chances[m - 1] = (chances[m] * m * (1 - p)) / ((n - m + 1) * p);
      total += chances[m - 1];
    }
    for (let m = mode; m < n; m++) {
      chances[m + 1] = (chances[m] * (n - m) * p) / ((m + 1) * (1 - p));
      total += chances[m + 1];
    }
    return chances.map((chance) => chance / total);
  }

  /**
   * Of the leave-one-out estimate of the derivative of the expected score by one logit.
   *
   * draws: independent draws of a label map: its pixels, or its cells; each is right with chance `right`.
   * samples: label maps that are compared (K), at least 2. noise: standard deviation of what is added to a score.
   *
   * With s = d log p(draw) / d logit the estimate is the sample covariance of score and s, so its mean is their
   * covariance and its variance that of a sample covariance.
   */
  function gradient({ draws, samples, noise, shape, parameter, right }) {
    const score = (m) => SHAPES[shape].score(m / draws, parameter);
    const others = binomial(draws - 1, right);
    const mean = [0, 0]; // of the score, if this draw is wrong or right
    const square = [0, 0];
    for (const own of [0, 1]) {
      others.forEach((chance, m) => (mean[own] += chance * score(m + own)));
    }
    const all = right * mean[1] + (1 - right) * mean[0];
    for (const own of [0, 1]) {
      others.forEach((chance, m) => (square[own] += chance * (score(m + own) - all) ** 2));
      square[own] += noise * noise;
    }
    const spread = right * (1 - right); // the variance of s
    const signal = spread * (mean[1] - mean[0]);
    const scores = right * square[1] + (1 - right) * square[0]; // their variance
    const fourth = right * (1 - right) ** 2 * square[1] + (1 - right) * right ** 2 * square[0];
    const variance = (fourth + (scores * spread - (samples - 2) * signal * signal) / (samples - 1)) / samples;
    return { signal, noise: Math.sqrt(Math.max(0, variance)) };
  }

  /** Signal to noise of that estimate; infinite where there is no noise. */
  function signalToNoise(options) {
    const { signal, noise } = gradient(options);
    return signal === 0 ? 0 : Math.abs(signal) / noise;
  }

  /** The fewest samples at which the signal is as large as the noise, or Infinity. */
  function samplesNeeded(options) {
    let [low, high] = [1, 2];
    while (signalToNoise({ ...options, samples: high }) < 1) {
      [low, high] = [high, high * 2];
      if (high > 1e12) return Infinity;
    }
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (signalToNoise({ ...options, samples: middle }) < 1) low = middle;
      else high = middle;
    }
    return high;
  }

  Object.assign(playground, { SHAPES, binomial, gradient, signalToNoise, samplesNeeded });
})(window.playground);
