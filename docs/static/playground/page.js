// The page: sliders, pictures and curves.
"use strict";

(function (playground) {
  const SIDES = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64];
  const SAMPLES = [2, 4, 8, 16, 32, 64, 128, 256];
  const CELLS = [1, 2, 4, 8, 16];
  const START = { side: 16, samples: 16, noise: 0, shape: "accuracy", parameter: 1, cell: 1, right: 0.5 };
  const PRESETS = {
    "one pixel": { side: 1 },
    "a thousand pixels": { side: 32 },
    "the same in cells of 4": { side: 32, cell: 4 },
    "a noisy judge": { noise: 0.2 },
    "all or nothing": { shape: "threshold", parameter: 0.75 },
    "five stars": { shape: "stars", parameter: 5 },
    "only near perfection counts": { shape: "power", parameter: 8 },
  };
  const root = document.getElementById("playground");
  if (!root) return;
  const find = (name) => root.querySelector(`[data-part="${name}"]`);
  const state = { ...START };
  let policy, curves, timer, learning, lastTime;

  function number(x) {
    if (!isFinite(x)) return "∞";
    if (x >= 1e6 || (x > 0 && x < 1e-4)) return x.toExponential(1);
    return x >= 100 ? Math.round(x).toLocaleString("en") : Number(x.toPrecision(3)).toString();
  }
  const draws = (side = state.side) => Math.ceil(side / state.cell) ** 2;
  const options = (side) => ({ ...state, draws: draws(side) });

  // Sliders

  function slider(name, values, show = String) {
    const input = find(name);
    input.min = 0;
    input.max = values.length - 1;
    input.addEventListener("input", () => change({ [name]: values[input.value] }));
    return () => {
      input.value = values.indexOf(state[name]);
      input.setAttribute("aria-valuetext", show(state[name]));
      find(`${name}-value`).textContent = show(state[name]);
    };
  }

  function plain(name) {
    const input = find(name);
    input.addEventListener("input", () => change({ [name]: Number(input.value) }));
    return () => {
      input.value = state[name];
      find(`${name}-value`).textContent = number(state[name]);
    };
  }

  const shown = [
    slider("side", SIDES, (side) => `${(side * side).toLocaleString("en")} (${side}×${side})`),
    slider("samples", SAMPLES),
    slider("cell", CELLS, (cell) => (cell === 1 ? "none" : `${cell}×${cell}`)),
    plain("noise"),
    plain("right"),
    plain("parameter"),
  ];
  find("shape").addEventListener("change", (event) => {
    const shape = event.target.value;
    change({ shape, parameter: playground.SHAPES[shape].start ?? 1 });
  });

  function change(part) {
    Object.assign(state, part);
    const shape = playground.SHAPES[state.shape];
    find("shape").value = state.shape;
    find("parameter-row").hidden = !shape.label;
    if (shape.label) {
      find("parameter-label").textContent = shape.label;
      for (const name of ["min", "max", "step"]) find("parameter")[name] = shape[name];
    }
    shown.forEach((show) => show());
    drawSignal();
    if ("side" in part) reset();
    else say();
  }

  // Signal to noise

  function colour(name) {
    return getComputedStyle(root).getPropertyValue(`--playground-${name}`).trim();
  }

  function chart(place, series, axes, log) {
    const ink = colour("ink");
    const tens = (u, splits) => splits.map((x) => (log && Math.abs(Math.log10(x) - Math.round(Math.log10(x))) > 1e-9 ? null : x));
    const lines = { stroke: colour("grid"), width: 1, filter: tens };
    const axis = (label, more) => ({ label, stroke: ink, grid: lines, ticks: lines, ...more });
    const width = place.clientWidth || 320;
    place.textContent = "";
    return new uPlot(
      {
        width,
        height: Math.max(220, Math.min(300, width * 0.6)),
        legend: { live: false },
        cursor: { drag: { x: false, y: false } },
        scales: log ? { x: { time: false, distr: 3 }, y: { distr: 3 } } : { x: { time: false }, y: { range: [-0.05, 1.05] } },
        axes: [axis(axes[0]), axis(axes[1], { size: 60 })],
        series: [{ label: axes[0] }, ...series],
      },
      [[], ...series.map(() => [])],
      place,
    );
  }

  let signalChart;

  function drawSignal() {
    const sizes = SIDES.map((side) => side * side);
    const positive = (x) => (x > 1e-5 && isFinite(x) ? x : null); // what a logarithmic axis can show
    const mine = SIDES.map((side) => positive(playground.signalToNoise(options(side))));
    const byPixel = SIDES.map(() => positive(playground.signalToNoise({ ...state, draws: 1, shape: "accuracy" })));
    const here = SIDES.map((side, i) => (side === state.side ? mine[i] : null));
    signalChart.setData([sizes, mine, here, byPixel]);
    const now = playground.signalToNoise(options());
    const needed = playground.samplesNeeded(options());
    find("snr").textContent = number(now);
    find("needed").textContent = needed === Infinity ? "more than 10¹² label maps" : `${number(needed)} label maps`;
  }

  // The policy

  function reset() {
    stop();
    policy = new playground.Policy({ side: state.side, seed: Number(find("seed").value) || 0 });
    curves = [[0], [policy.accuracy()], [null]];
    drawPolicy();
  }

  function step(many = 1) {
    let mean = 0;
    for (let i = 0; i < many; i++) mean = policy.update(state);
    curves[0].push(policy.updates);
    curves[1].push(policy.accuracy());
    curves[2].push(mean);
    if (curves[0].length > 600) curves = curves.map((curve) => curve.filter((_, i) => i % 2 === 0 || i === curve.length - 1));
    drawPolicy();
  }

  function run(time) {
    if (lastTime === undefined || time - lastTime >= 30) {
      const cost = state.samples * policy.pixels;
      step(Math.max(1, Math.min(4, Math.floor(150000 / cost))));
      lastTime = time;
    }
    if (policy.updates >= 2000) return stop();
    timer = requestAnimationFrame(run);
  }

  function stop() {
    cancelAnimationFrame(timer);
    timer = undefined;
    find("start").textContent = "Learn";
  }

  function start() {
    if (timer !== undefined) return stop();
    if (policy.updates >= 2000) reset();
    find("start").textContent = "Pause";
    timer = requestAnimationFrame(run);
  }

  function paint(name, values) {
    const canvas = find(name);
    const side = policy.side;
    canvas.width = canvas.height = side;
    const context = canvas.getContext("2d");
    const image = context.createImageData(side, side);
    const [low, high] = [[33, 76, 140], [250, 190, 70]]; // also told apart by brightness
    for (let i = 0; i < side * side; i++) {
      for (let c = 0; c < 3; c++) image.data[4 * i + c] = low[c] + (high[c] - low[c]) * values[i];
      image.data[4 * i + 3] = 255;
    }
    context.putImageData(image, 0, 0);
  }

  function drawPolicy() {
    const p = policy.probabilities();
    paint("target", policy.target);
    paint("probabilities", p);
    paint("likeliest", p.map((x) => (x > 0.5 ? 1 : 0)));
    learning.setData(curves);
    say();
  }

  function say() {
    const accuracy = policy.accuracy();
    const queries = policy.updates * state.samples;
    find("updates").textContent = policy.updates.toLocaleString("en");
    find("queries").textContent = queries.toLocaleString("en");
    find("accuracy").textContent = accuracy.toFixed(3);
    // Where the policy is now: the mean chance of a right draw.
    const p = policy.probabilities();
    const chance = p.reduce((sum, x, i) => sum + (policy.target[i] ? x : 1 - x), 0) / policy.pixels;
    const right = Math.min(0.999, Math.max(0.001, chance));
    find("chance").textContent = chance.toFixed(3);
    find("snr-now").textContent = number(playground.signalToNoise({ ...options(), right }));
  }

  // The page as a whole

  function build() {
    signalChart = chart(
      find("signal-chart"),
      [
        { label: "a pixel's gradient from one score", stroke: colour("first"), width: 2, points: { show: false } },
        { label: "now", stroke: colour("first"), points: { show: true, size: 12, fill: colour("first") }, paths: () => null },
        { label: "one score a pixel", stroke: colour("second"), width: 2, dash: [6, 4], points: { show: false } },
      ],
      ["pixels", "signal to noise"],
      true,
    );
    learning = chart(
      find("learning-chart"),
      [
        { label: "accuracy of the likeliest label map", stroke: colour("first"), width: 2, points: { show: false } },
        { label: "mean score of the update", stroke: colour("second"), width: 1, dash: [6, 4], points: { show: false } },
      ],
      ["updates", "accuracy, score"],
      false,
    );
  }

  function rebuild() {
    if (root.clientWidth === 0) return;
    build();
    drawSignal();
    if (policy) learning.setData(curves);
  }

  for (const [name, part] of Object.entries(PRESETS)) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.addEventListener("click", () => change({ ...START, ...part }));
    find("presets").append(button);
  }
  find("start").addEventListener("click", start);
  find("step").addEventListener("click", () => (stop(), step()));
  find("reset").addEventListener("click", reset);
  find("seed").addEventListener("change", reset);
  window.addEventListener("resize", rebuild);
  new MutationObserver(rebuild).observe(document.body, { attributes: true, attributeFilter: ["data-theme"] });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", rebuild);
  build();
  change(START);
  Object.assign(playground, { state, change, step, run: (many) => step(many), policy: () => policy });
})(window.playground);
