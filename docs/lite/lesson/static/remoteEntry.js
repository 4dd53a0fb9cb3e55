// An extension of JupyterLite, as it loads one. A notebook can only link to its own cells and to other hosts, so the
// links of its first and last cells are written as such (#lesson-..., #site-..., #next-..., #run-all), and lead
// elsewhere from here on.
"use strict";

(() => {
  const STYLE = `
    .jp-MarkdownOutput a[href="#run-all"] {
      display: inline-block; margin-right: 1em; padding: 0.3em 0.9em; border-radius: 4px;
      background: #0072b2; color: white; font-weight: 600; text-decoration: none;
    }
    .jp-MarkdownOutput a[href="#run-all"]:hover { background: #005a8e; }
    .jp-MarkdownOutput a[href="#run-all"]:focus-visible { outline: 2px solid #0072b2; outline-offset: 2px; }`;

  const RUN = "notebook:run-all-cells";

  function lead() {
    for (const link of document.querySelectorAll('.jp-MarkdownOutput a[href^="#lesson-"]')) {
      link.href = new URL(`../../lessons/${link.hash.slice("#lesson-".length)}.html`, location.href);
      link.target = "_self";
    }
    for (const link of document.querySelectorAll('.jp-MarkdownOutput a[href^="#next-"]')) {
      link.href = new URL(`?path=${link.hash.slice("#next-".length)}.ipynb`, location.href);
      link.target = "_self";
    }
    for (const link of document.querySelectorAll('.jp-MarkdownOutput a[href^="#site-"]')) {
      link.href = new URL(`../../${link.hash.slice("#site-".length)}.html`, location.href);
      link.target = "_self";
    }
    for (const link of document.querySelectorAll('.jp-MarkdownOutput a[href="#run-all"]')) {
      link.setAttribute("role", "button");
    }
  }

  function activate(app) {
    document.head.appendChild(document.createElement("style")).textContent = STYLE;
    new MutationObserver(lead).observe(document.body, { childList: true, subtree: true });
    const runAll = () => { // before its kernel is there, the command would do nothing
      if (app.shell.currentWidget?.sessionContext?.session?.kernel) app.commands.execute(RUN);
      else setTimeout(runAll, 100);
    };
    const run = (event) => {
      const link = event.target.closest?.(".jp-MarkdownOutput a");
      if (link?.getAttribute("href") !== "#run-all") {
        if (link?.target === "_self") event.stopPropagation(); // or JupyterLab looks for it among its files
        return;
      }
      event.preventDefault();
      event.stopPropagation();
      runAll();
    };
    window.addEventListener("click", run, true);
  }

  const plugin = { id: "lora-np-lesson:links", autoStart: true, activate };
  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB["lora-np-lesson"] = { init() {}, get: async () => () => ({ __esModule: true, default: plugin }) };
})();
