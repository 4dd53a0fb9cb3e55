// Training of B A: what lora_np.fit does on a LoRA layer, in a few loops.
(() => {
  "use strict";

  function inner(u, v) {
    let sum = 0;
    for (let i = 0; i < u.length; i++) sum += u[i] * v[i];
    return sum;
  }

  const zeros = (rows, columns) => Array.from({ length: rows }, () => Array(columns).fill(0));
  // M N^T, of rows
  const times = (M, N) => M.map((row) => N.map((other) => inner(row, other)));
  const transposed = (M) => M[0].map((_, j) => M.map((row) => row[j]));
  const scaled = (scale, M) => M.map((row) => row.map((value) => scale * value));
  const minus = (M, N) => M.map((row, i) => row.map((value, j) => value - N[i][j]));

  // h = scale B A x against y. The loss, a mean of squares, and its gradients need the moments C = E[x x'],
  // G = E[y x'] and power = E[y'y]. Both factors move by Adam (adam.js).
  function trainer(moments, start, { alpha, ...settings }) {
    const [A, B] = [start.A, start.B].map((M) => M.map((row) => [...row]));
    const scale = alpha / A.length,
      rows = [...A, ...B],
      moves = rows.map(({ length }) => globalThis.loraAdam(length, settings)),
      G = transposed(moments.G);
    const run = { steps: 0, factors: { A, B }, step, loss, update };

    // (scale B A C - G) A'
    const missed = (AC, GA) => minus(scaled(scale, times(B, times(A, AC))), GA);

    function loss({ C, G, power } = moments) {
      const GA = times(G, A),
        still = minus(missed(times(A, C), GA), GA);
      const change = still.reduce((sum, row, i) => sum + inner(row, B[i]), 0);
      return (power + scale * change) / G.length;
    }

    function step(rate) {
      const AC = times(A, moments.C),
        columns = transposed(B),
        both = times(times(columns, columns), transposed(AC)),
        slopes = [
          ...minus(scaled(scale, both), times(columns, G)),
          ...missed(AC, times(moments.G, A)),
        ];
      run.steps += 1;
      scaled((2 * scale) / B.length, slopes).forEach((slope, i) => moves[i](rows[i], slope, rate));
    }

    function update() {
      return scaled(scale, times(B, transposed(A)));
    }

    return run;
  }

  globalThis.loraTraining = { trainer, zeros, times, transposed, minus };
})();
