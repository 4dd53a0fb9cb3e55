// Singular values of updates B A, which are never formed, from the r x r Gram matrices of B and A: a worker of the
// inspector, and what NumPy calls in Python's worker, since its LAPACK is slow there.
(() => {
  "use strict";

  const SLICE = 128; // terms of a sum at a time: they stay in the cache
  const padded = (r) => 4 * Math.ceil(r / 4); // whole blocks of rows

  // C += X Y^T, of which the lower half counts unless `all`, for rows that are zero before `from`
  function multiply(C, X, Y, n, width, { all = false, from = () => 0, tick = () => {} } = {}) {
    for (let i = 0; i < n; i += 4) {
      for (let j = 0; j < (all ? n : i + 4); j += 2) {
        let [a, b, c, d, e, f, g, h] = [0, 0, 0, 0, 0, 0, 0, 0];
        const start = from(i, j);
        let p = i * width + start,
          q = j * width + start;
        for (const end = (j + 1) * width; q < end; p++, q++) {
          const y = Y[q],
            z = Y[q + width];
          a += X[p] * y;
          b += X[p] * z;
          c += X[p + width] * y;
          d += X[p + width] * z;
          e += X[p + 2 * width] * y;
          f += X[p + 2 * width] * z;
          g += X[p + 3 * width] * y;
          h += X[p + 3 * width] * z;
        }
        const at = i * n + j;
        C[at] += a;
        C[at + 1] += b;
        C[at + n] += c;
        C[at + n + 1] += d;
        C[at + 2 * n] += e;
        C[at + 2 * n + 1] += f;
        C[at + 3 * n] += g;
        C[at + 3 * n + 1] += h;
      }
      tick(4 / n);
    }
  }

  // Inner products of r vectors of a length, which are the rows of a matrix or its columns
  function gram(M, r, length, rows, tick = () => {}) {
    const n = padded(r),
      C = new Float64Array(n * n),
      slice = new Float64Array(n * SLICE);
    const [across, along] = rows ? [length, 1] : [1, r];
    for (let start = 0; start < length; start += SLICE) {
      for (let k = 0; k < SLICE; k++)
        for (let i = 0; i < r; i++)
          slice[i * SLICE + k] = start + k < length ? M[i * across + (start + k) * along] : 0;
      multiply(C, slice, slice, n, SLICE);
      tick(SLICE / length);
    }
    for (let i = 0; i < n; i++) for (let j = 0; j < i; j++) C[j * n + i] = C[i * n + j];
    return C;
  }

  // Upper triangular U with U^T U = C, without directions that are of rounding alone
  function root(C, n) {
    const U = C.slice();
    for (let j = 0; j < n; j++) {
      const row = j * n,
        pivot = U[row + j] > n * 2 ** -52 * C[row + j] ? Math.sqrt(U[row + j]) : 0;
      for (let k = 0; k < n; k++) U[row + k] = k < j || !pivot ? 0 : U[row + k] / pivot;
      for (let i = j + 1; pivot && i < n; i++) {
        const factor = U[row + i];
        for (let k = i; k < n; k++) U[i * n + k] -= factor * U[row + k];
      }
    }
    return U;
  }

  // What Householder's reflections make of a symmetric matrix: a diagonal, and what stands beside it. A row that a
  // reflection changes, up to its diagonal, gives its part of the product with the next one's vector at once.
  function tridiagonal(M, n, tick) {
    const diagonal = new Float64Array(n),
      beside = new Float64Array(n),
      none = new Float64Array(n);
    let [v, w] = [none, none];
    for (let m = n - 1; m >= 0; m--) {
      const row = M.subarray(m * n, m * n + m),
        next = row.map((value, j) => value - v[m] * w[j] - w[m] * v[j]),
        product = new Float64Array(m);
      diagonal[m] = M[m * n + m] - 2 * v[m] * w[m];
      const size = Math.hypot(...next),
        last = next[m - 1] ?? 0,
        length = Math.sqrt(2 * size * (size + Math.abs(last))) || 1;
      beside[m] = last < 0 ? size : -size;
      if (m) next[m - 1] -= beside[m];
      for (let j = 0; j < m; j++) next[j] /= length;
      for (let i = 0; i < m; i++) {
        const [vi, wi, xi] = [v[i], w[i], next[i]];
        let sum = 0;
        for (let j = 0, at = i * n; j <= i; j++, at++) {
          const value = (M[at] -= vi * w[j] + wi * v[j]);
          sum += value * next[j];
          product[j] += value * xi;
        }
        product[i] += sum - M[i * n + i] * xi;
      }
      const along = product.reduce((sum, value, j) => sum + value * next[j], 0);
      [v, w] = [next, product.map((value, j) => 2 * (value - along * next[j]))];
      tick((3 * m * m) / n ** 3);
    }
    return [diagonal, beside];
  }

  // Eigenvalues of a tridiagonal matrix, the largest first: each by halves, from how many lie above a number
  function eigenvalues(diagonal, beside) {
    const squares = beside.map((x) => x * x);
    const above = (x) => {
      let [count, pivot] = [0, 1];
      for (let i = 0; i < diagonal.length; i++) {
        pivot = diagonal[i] - x - squares[i] / pivot || 2 ** -1000;
        if (pivot > 0) count++;
      }
      return count;
    };
    const trace = diagonal.reduce((sum, x) => sum + x, 0); // none is above it, since none is below zero
    let high = trace;
    return diagonal.map((_, place) => {
      for (let low = 0; high - low > 2 ** -52 * trace;) {
        const middle = (low + high) / 2;
        if (above(middle) > place) low = middle;
        else high = middle;
      }
      return high;
    });
  }

  // U and U Gram(B) U^T, where U^T U is Gram(A): the eigenvalues of the latter are squares of singular values.
  function middle(ofB, ofA, tick = () => {}) {
    const n = Math.sqrt(ofA.length),
      U = root(ofA, n),
      UB = new Float64Array(n * n),
      M = new Float64Array(n * n);
    multiply(UB, U, ofB, n, n, { all: true, from: (i) => i, tick });
    multiply(M, UB, U, n, n, { from: (i, j) => j, tick });
    return [U, M];
  }

  // Singular values, strongest first, from the Gram matrices of B and of A
  function values(ofB, ofA, tick = () => {}) {
    const n = Math.sqrt(ofA.length),
      part = (share) => tick(share / 3),
      [, M] = middle(ofB, ofA, part);
    const squares = eigenvalues(...tridiagonal(M, n, part));
    const floor = n * 2 ** -52 * squares[0]; // below it, all is rounding
    return squares.map((square) => (square > floor ? Math.sqrt(square) : 0));
  }

  self.loraSpectra = { gram, middle, values };
  if (self.loadPyodide) return;

  // The worker's answers: how far it is, and then the singular values of each pair of tensors, by its name
  self.addEventListener("message", async ({ data: pairs }) => {
    const found = [];
    let last = 0;
    for (const [name, { A, B }] of pairs) {
      const [M, N] = await Promise.all(
        [A, B].map((one) => self.loraSafetensors.numbers(one.data, one)),
      );
      let done = 0;
      const tick = (share) => {
        const now = performance.now();
        done += share / 3;
        if (now < last + 100) return;
        last = now;
        self.postMessage({ done: (found.length + done) / pairs.length });
      };
      const s = values(
        gram(N, B.r, B.length, B.rows, tick),
        gram(M, A.r, A.length, A.rows, tick),
        tick,
      );
      found.push([name, s.subarray(0, Math.min(A.r, A.length, B.length))]);
    }
    self.postMessage({ found });
  });
})();
