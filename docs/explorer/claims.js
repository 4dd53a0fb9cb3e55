// The sliders of a claim: its recorded losses at one rate for all.
(() => {
  "use strict";

  const root = document.getElementById("claim-try");
  const data = document.getElementById("claim-data");
  if (root && data) turn(root, JSON.parse(data.textContent));

  function turn(root, { methods, measures }) {
    const { make, parts } = window.loraPrograms,
      { find, show } = parts(root);
    const rates = [...new Set(methods.flatMap((method) => Object.keys(method.means.test)))].sort(
      (a, b) => a - b,
    );
    const ranks = [
      ...new Set(methods.map((method) => method.rank).filter((rank) => rank != null)),
    ].sort((a, b) => a - b);
    const [rate, rank, measure] = ["rate", "rank", "measure"].map((name) => find(`[name=${name}]`));
    measure.replaceChildren(
      ...Object.entries(measures).map(([name, label]) => new Option(label, name)),
    );
    find(".claim-measure").hidden = measure.options.length < 2;
    const means = (method) => method.means[measure.value];
    const best = (method) =>
      means(method)[Object.keys(means(method)).find((key) => Number(key) === method.best)];
    const number = (x) => (x == null ? "diverged" : Number(x.toPrecision(3)).toString());
    rate.max = rates.length - 1;
    rate.value = Math.max(
      0,
      rates.findIndex((key) => Number(key) === methods[0].best),
    );
    rank.max = ranks.length;
    rank.value = 0;
    find(".claim-rank").hidden = ranks.length < 2;

    function draw() {
      const at = rates[rate.value];
      const only = Number(rank.value) ? ranks[rank.value - 1] : null;
      const shown = methods.filter(
        (method) => only == null || method.rank == null || method.rank === only,
      );
      const most = 1.6 * Math.max(...shown.map(best));
      show("rate", (rate.ariaValueText = at));
      show("rank", (rank.ariaValueText = only ?? "all"));
      find("[data-show=bars]").replaceChildren(
        ...shown.map((method) => row(method, means(method)[at], most, at in means(method))),
      );
      const here = shown
        .filter((method) => means(method)[at] != null)
        .sort((a, b) => means(a)[at] - means(b)[at]);
      const own = [...shown].sort((a, b) => best(a) - best(b))[0];
      show(
        "said",
        here.length
          ? `Lowest at ${at}: ${here[0].name}; at own rates: ${own.name}.`
          : `At ${at} nothing was recorded, or all diverged.`,
      );
    }

    function row(method, loss, most, tried) {
      const [line, bar, mark] = ["div", "i", "b"].map((tag) => make(tag)),
        track = make("span", "", "track");
      const wide = (x) => `${Math.min(100, (100 * x) / most)}%`;
      bar.style.width = loss == null ? (tried ? "100%" : "0") : wide(loss);
      bar.style.opacity = loss == null || loss > most ? 0.35 : 1;
      mark.style.left = wide(best(method));
      track.append(bar, mark);
      const value = tried ? number(loss) : "not tried";
      line.append(make("span", method.name), track, make("span", value));
      return line;
    }

    for (const control of [rate, rank, measure]) control.addEventListener("input", draw);
    root.hidden = false;
    draw();
  }
})();
