(() => {
  "use strict";

  // Code and tables that are wider than the page scroll by themselves: let the keyboard reach those that do.
  const reach = () => {
    for (const box of document.querySelectorAll("article pre, .table-wrapper")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("load", reach);
  addEventListener("resize", reach);

  // ?answers in the address unfolds answers, hints and solutions: for a teacher's print.
  if (new URLSearchParams(location.search).has("answers")) {
    for (const fold of document.querySelectorAll("article details")) fold.open = true;
  }
})();
