// Keys of every page. An element with data-key="x" is clicked when x is pressed, a field is focused; "?" lists them.
// In an element with data-rows, j and k step through its rows, unless the page has links for these keys.
(() => {
  "use strict";
  const typing = (target) => target.matches("input:not([type=checkbox]), textarea, select, [contenteditable]");
  const keyed = () => [...document.querySelectorAll("[data-key]")];
  const bound = (key) => keyed().find((element) => element.dataset.key.split(" ").includes(key));
  const rows = () => [...document.querySelectorAll("[data-rows] tbody tr, ol[data-rows] > li")];
  const says = (element) => element.dataset.says || element.title || element.ariaLabel || element.textContent.trim();

  function step(by) {
    const all = rows();
    const at = all.findIndex((row) => row.contains(document.activeElement));
    const row = all[at < 0 ? (by > 0 ? 0 : all.length - 1) : Math.min(all.length - 1, Math.max(0, at + by))];
    const link = row && row.querySelector("a[href]");
    if (link) {
      link.focus();
      row.scrollIntoView({ block: "nearest" });
    }
    return Boolean(link);
  }

  function list() {
    const dialog = document.getElementById("keys");
    const found = dialog.querySelector("dl");
    found.replaceChildren();
    const signs = { ArrowLeft: "←", ArrowRight: "→" };
    const add = (keys, text) => {
      const term = document.createElement("dt");
      const meaning = document.createElement("dd");
      for (const key of keys.split(" ")) {
        const sign = document.createElement("kbd");
        sign.textContent = signs[key] || key;
        term.append(sign);
      }
      meaning.textContent = text;
      found.append(term, meaning);
    };
    for (const element of keyed()) add(element.dataset.key, says(element));
    if (rows().length && !bound("j")) {
      add("j k", "next and previous row");
      add("Enter", "open the row");
    }
    add("Esc", "close, or leave the search");
    dialog.showModal();
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (typing(event.target)) {
      if (event.key === "Escape") event.target.blur();
      return;
    }
    if (document.querySelector("dialog[open]")) return;
    if (event.key === "?") {
      list();
    } else {
      const element = bound(event.key);
      if (element && typing(element)) {
        element.focus();
        element.select && element.select();
      } else if (element) {
        element.click();
      } else if (!((event.key === "j" && step(1)) || (event.key === "k" && step(-1)))) {
        return;
      }
    }
    event.preventDefault();
  });

  for (const button of document.querySelectorAll('[data-key="?"]')) {
    button.hidden = false;
    button.addEventListener("click", list);
  }
  for (const link of document.querySelectorAll('a[href="#sql"]')) {
    link.addEventListener("click", () => document.querySelector("#sql details")?.setAttribute("open", ""));
  }
})();
