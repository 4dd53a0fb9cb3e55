// Code and tables that are wider than the page scroll by themselves: let the keyboard reach those that do.
(() => {
  "use strict";
  const reach = () => {
    for (const box of document.querySelectorAll("article pre, .table-wrapper")) {
      if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
      else box.removeAttribute("tabindex");
    }
  };
  addEventListener("load", reach);
  addEventListener("resize", reach);
})();
