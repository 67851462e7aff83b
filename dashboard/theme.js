/* Before anything is painted: the theme that the person chose, else the system's. */
"use strict";
const theme = {
  chosen: () => { try { return localStorage.getItem("theme") ?? "system"; } catch { return "system"; } },
  light: matchMedia("(prefers-color-scheme: light)"),
  show() {
    const chosen = theme.chosen();
    document.documentElement.dataset.theme = chosen === "system" ? (theme.light.matches ? "light" : "dark") : chosen;
  },
};
theme.show();
theme.light.addEventListener("change", theme.show);
