(() => {
  "use strict";

  // A colour of the pages by its name (see explorer/palette.py), and its red, green and blue.
  window.token = (name) => getComputedStyle(document.body).getPropertyValue(`--${name}`).trim();
  window.colour = (name) =>
    window
      .token(name)
      .match(/\w\w/g)
      .map((pair) => parseInt(pair, 16));

  // Code, tables and formulas that are wider than the page scroll by themselves: let the keyboard reach those that do. An
  // observer is told once they are laid out, so that nothing is laid out for the question.
  const reach = new ResizeObserver((boxes) => {
    for (const { target: box } of boxes) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  });
  for (const box of document.querySelectorAll("article pre, .table-wrapper, .math-wrapper"))
    reach.observe(box);

  // Versions that came after this page was built: the list lies beside the folder of each version.
  const versions = document.querySelector("nav.versions");
  const opened = location.protocol === "file:"; // by a double click: a browser fetches nothing
  if (versions && !opened) {
    const root = new URL(document.documentElement.dataset.content_root || "./", location);
    fetch(new URL("../versions.json", root))
      .then((answer) => answer.json())
      .then((names) => {
        versions.replaceChildren(
          ...names.map((name) => {
            const link = document.createElement("a");
            link.href = new URL(`../${name}/`, root);
            link.textContent = name;
            if (name === versions.dataset.here) link.ariaCurrent = "true";
            return link;
          }),
        );
        versions.hidden = names.length < 2;
      })
      .catch(() => {});
  }

  // What a page needs that is opened so, and is not of the zip for it (docs/_ext/offline.py)
  const needy = document.querySelector(".python-loading, #speaker");
  if (opened && !window.loraOffline && needy) {
    const note = Object.assign(document.createElement("p"), { className: "admonition" });
    note.textContent =
      "This page was opened from a file, where a browser starts no Python and reads no data. " +
      "Unpack lora_np-offline.zip of a release and open its index.html, or serve this folder: " +
      "python -m http.server.";
    needy.closest("section").querySelector("h1, h2").after(note);
  }

  // ?answers in the address unfolds answers, hints and solutions: for a teacher's print.
  if (new URLSearchParams(location.search).has("answers")) {
    for (const fold of document.querySelectorAll("article details")) fold.open = true;
  }
})();
