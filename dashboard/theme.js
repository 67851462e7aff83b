/* Before anything is painted: the theme that the person chose; "system" leaves it to the system. */
"use strict";
const theme = {
  chosen: () => { try { return localStorage.getItem("theme") ?? "system"; } catch { return "system"; } },
  show() { document.documentElement.dataset.theme = theme.chosen(); },
};
theme.show();
