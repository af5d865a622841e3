// A policy with one logit a pixel, that learns a label map of two classes from scores alone.
"use strict";
window.playground = window.playground || {};

(function (playground) {
  /** Uniform numbers of a seed (mulberry32). */
  function uniforms(seed) {
    let state = seed >>> 0;
    return function () {
      state = (state + 0x6d2b79f5) >>> 0;
      let t = Math.imul(state ^ (state >>> 15), state | 1);
      t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
      return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
    };
  }

  /** A standard normal number. */
  function normal(uniform) {
    return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }

  /** A disc and a square, side × side labels of 0 and 1. */
  function picture(side) {
    const target = new Uint8Array(side * side);
    for (let y = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        const [u, v] = [(x + 0.5) / side, (y + 0.5) / side];
        target[y * side + x] = (u - 0.36) ** 2 + (v - 0.4) ** 2 < 0.07 || (u > 0.62 && v > 0.68) ? 1 : 0;
      }
    }
    return target;
  }

  /** Learns by Adam from leave-one-out advantages divided by their root mean square. */
  class Policy {
    constructor({ side, seed }) {
      this.side = side;
      this.pixels = side * side;
      this.target = picture(side);
      this.uniform = uniforms(seed);
      this.logits = new Float64Array(this.pixels);
      this.first = new Float64Array(this.pixels); // Adam's moments
      this.second = new Float64Array(this.pixels);
      this.updates = 0;
    }

    /** Chance of class 1, pixel by pixel. */
    probabilities() {
      return this.logits.map((z) => 1 / (1 + Math.exp(-z)));
    }

    /** Share of right pixels of the most likely label map. */
    accuracy() {
      let right = 0;
      for (let i = 0; i < this.pixels; i++) right += this.logits[i] > 0 === (this.target[i] === 1) ? 1 : 0;
      return right / this.pixels;
    }

    /** One update from K label maps whose pixels share a draw in cells; returns the mean score. */
    update({ samples, noise, shape, parameter, cell, rate = 0.1 }) {
      const { side, pixels } = this;
      const p = this.probabilities();
      const across = Math.ceil(side / cell) + 1; // cells in a row; their grid moves from update to update
      const shiftX = Math.floor(this.uniform() * cell);
      const shiftY = Math.floor(this.uniform() * cell);
      const labels = new Uint8Array(samples * pixels);
      const scores = new Float64Array(samples);
      const drawn = new Float64Array(across * across);
      for (let k = 0; k < samples; k++) {
        for (let c = 0; c < drawn.length; c++) drawn[c] = this.uniform();
        let right = 0;
        for (let i = 0; i < pixels; i++) {
          const y = Math.floor((Math.floor(i / side) + shiftY) / cell);
          const x = Math.floor(((i % side) + shiftX) / cell);
          const label = drawn[y * across + x] < p[i] ? 1 : 0;
          labels[k * pixels + i] = label;
          right += label === this.target[i] ? 1 : 0;
        }
        scores[k] = playground.SHAPES[shape].score(right / pixels, parameter) + noise * normal(this.uniform);
      }
      const mean = scores.reduce((sum, score) => sum + score, 0) / samples;
      const advantages = scores.map((score) => ((score - mean) * samples) / (samples - 1));
      const scale = Math.sqrt(advantages.reduce((sum, a) => sum + a * a, 0) / samples);
      this.updates += 1;
      if (scale > 1e-12) this.ascend(p, labels, advantages.map((a) => a / scale), rate);
      return mean;
    }

    ascend(p, labels, advantages, rate) {
      const samples = advantages.length;
      const [b1, b2] = [0.9, 0.99];
      for (let i = 0; i < this.pixels; i++) {
        let slope = 0;
        for (let k = 0; k < samples; k++) slope += advantages[k] * (labels[k * this.pixels + i] - p[i]);
        slope /= samples;
        this.first[i] = b1 * this.first[i] + (1 - b1) * slope;
        this.second[i] = b2 * this.second[i] + (1 - b2) * slope * slope;
        const step = this.first[i] / (1 - b1 ** this.updates);
        this.logits[i] += (rate * step) / (Math.sqrt(this.second[i] / (1 - b2 ** this.updates)) + 1e-8);
        this.logits[i] = Math.max(-8, Math.min(8, this.logits[i]));
      }
    }
  }

  Object.assign(playground, { Policy, uniforms, normal, picture });
})(window.playground);
