(() => {
  "use strict";

  // Code, tables and formulas that are wider than the page scroll by themselves: let the keyboard reach those that do.
  const reach = () => {
    for (const box of document.querySelectorAll("article pre, .table-wrapper, .math-wrapper")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("load", reach);
  addEventListener("resize", reach);

  // Versions that came after this page was built: the list lies beside the folder of each version.
  const versions = document.querySelector("nav.versions");
  if (versions) {
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

  // ?answers in the address unfolds answers, hints and solutions: for a teacher's print.
  if (new URLSearchParams(location.search).has("answers")) {
    for (const fold of document.querySelectorAll("article details")) fold.open = true;
  }
})();
