// Training of B A: what lora_np.fit does on a LoRA layer, in a few loops.
(() => {
  "use strict";

  const zeros = (rows, columns) => Array.from({ length: rows }, () => new Float64Array(columns));

  // M N^T, of rows.
  function times(M, N) {
    return M.map((row) =>
      Float64Array.from(N, (other) => row.reduce((sum, value, i) => sum + value * other[i], 0)),
    );
  }

  const transposed = (M) => Array.from(M[0], (_, j) => Float64Array.from(M, (row) => row[j]));

  // h = scale B A x against y: the loss, the mean of squares, and its gradients of A and B.
  function gradients({ x, y }, { A, B }, scale) {
    const z = times(x, A);
    const residual = times(z, B).map((row, n) => row.map((value, i) => scale * value - y[n][i]));
    const size = residual.length * residual[0].length;
    const loss =
      residual.reduce((sum, row) => sum + row.reduce((s, value) => s + value * value, 0), 0) / size;
    const g = residual.map((row) => row.map((value) => (2 * scale * value) / size));
    return {
      loss,
      B: times(transposed(g), transposed(z)),
      A: times(transposed(times(g, transposed(B))), transposed(x)),
    };
  }

  // Both factors by Adam (adam.js), a row at a time
  function trainer(task, { A, B }, { alpha, rate }) {
    const factors = {
      A: A.map((row) => Float64Array.from(row)),
      B: B.map((row) => Float64Array.from(row)),
    };
    const scale = alpha / A.length,
      rows = [...factors.A, ...factors.B];
    const moves = rows.map(({ length }) => globalThis.loraAdam(length));
    let steps = 0;
    const loss = () => gradients(task, factors, scale).loss;

    function step() {
      const found = gradients(task, factors, scale),
        slopes = [...found.A, ...found.B];
      steps += 1;
      rows.forEach((row, i) => moves[i](row, slopes[i], rate));
      return found.loss;
    }

    const update = () =>
      times(factors.B, transposed(factors.A)).map((row) => row.map((value) => scale * value));
    return {
      step,
      loss,
      update,
      factors,
      get steps() {
        return steps;
      },
    };
  }

  globalThis.loraTraining = { trainer, zeros };
})();
