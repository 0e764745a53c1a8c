// What is wider than its place and scrolls can be reached by keyboard, formulas included.
function reachable() {
  for (const box of document.querySelectorAll("pre, div.math, mjx-container, div.cell_output, .pst-scrollable-table-container"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
    else if (box.tabIndex === 0) box.removeAttribute("tabindex");
}
addEventListener("load", () => (window.MathJax?.startup?.promise ?? Promise.resolve()).then(reachable));
addEventListener("resize", reachable);
