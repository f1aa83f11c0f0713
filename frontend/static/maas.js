// maas.js: small enhancements by delegation, no dependencies. Loaded in <head> without defer so that
// the stored theme is set before first paint. Pages read and submit without it.
(() => {
  const root = document.documentElement, themes = ["system", "light", "dark"];
  const stored = (key, value) => { try { return value === undefined ? localStorage.getItem(key) : localStorage.setItem(key, value); } catch { return null; } };
  let theme = themes.includes(stored("theme")) ? stored("theme") : "system";
  const showTheme = () => {
    if (theme === "system") delete root.dataset.theme; else root.dataset.theme = theme;
    for (const el of document.querySelectorAll("[data-theme-label]")) el.textContent = el.dataset[theme] || theme;
  };
  showTheme();

  const openDialog = (id) => { const d = id && document.getElementById(id); if (d?.tagName === "DIALOG" && !d.open) d.showModal(); };
  const setLanguage = (lang) => { for (const r of document.querySelectorAll(`[data-lang="${CSS.escape(lang)}"]`)) r.checked = true; };

  // What a page needs after it loads, and each part that htmx puts in.
  const settle = () => {
    showTheme();
    if (stored("lang")) setLanguage(stored("lang"));
    for (const el of document.querySelectorAll("dialog[data-shown]")) openDialog(el.id);
    document.querySelector("[role=alert][tabindex]:not([data-seen])")?.focus();
    for (const el of document.querySelectorAll("[role=alert][tabindex]")) el.dataset.seen = "";
  };
  document.addEventListener("DOMContentLoaded", () => {
    settle();
    openDialog(location.hash.slice(1));               // a dialog is linkable: /keys#create-key
    document.body.addEventListener("htmx:afterSettle", settle);
    // What a poll replaces keeps its place: the reader's scroll never jumps.
    const places = new Map();
    document.body.addEventListener("htmx:beforeSwap", (event) => {
      for (const el of event.detail.target.querySelectorAll("[id][data-keep-scroll]")) places.set(el.id, el.scrollTop);
    });
    document.body.addEventListener("htmx:afterSwap", () => {
      for (const [id, top] of places) { const el = document.getElementById(id); if (el) el.scrollTop = top; }
      places.clear();
    });
    // A poll that fails leaves what is shown and says so; the next one that answers takes it back.
    const connection = (lost) => {
      for (const el of document.querySelectorAll(".live")) {
        el.classList.toggle("paused", lost);
        el.dataset.live ??= el.textContent;
        el.textContent = lost ? el.dataset.lost : el.dataset.live;
      }
    };
    for (const name of ["htmx:sendError", "htmx:timeout"]) document.body.addEventListener(name, () => connection(true));
    document.body.addEventListener("htmx:afterOnLoad", () => connection(false));
  });
  // What is saved as soon as it is chosen; without a script there is a button.
  document.addEventListener("change", (event) => { if (event.target.matches("[data-submit]")) event.target.form.requestSubmit(); });
  addEventListener("hashchange", () => openDialog(location.hash.slice(1)));

  document.addEventListener("click", async (event) => {
    const el = event.target.closest("[data-copy], [data-open], [data-close], [data-theme-toggle]");
    if (!el) return;
    if ("themeToggle" in el.dataset) stored("theme", theme = themes[(themes.indexOf(theme) + 1) % 3]), showTheme();
    if (el.dataset.open && document.getElementById(el.dataset.open)) event.preventDefault(), openDialog(el.dataset.open);
    if ("close" in el.dataset && el.closest("dialog")) event.preventDefault(), el.closest("dialog").close();
    if (el.dataset.copy) {
      const label = el.textContent, source = document.getElementById(el.dataset.copy);
      try { await navigator.clipboard.writeText(source.textContent.trim()); el.textContent = el.dataset.done || "Copied"; }
      catch { getSelection().selectAllChildren(source); el.textContent = "Ctrl C"; }
      setTimeout(() => { el.textContent = label; }, 1600);
    }
  });
  document.addEventListener("change", (event) => {     // one choice of language holds for every snippet
    if (event.target.dataset.lang) stored("lang", event.target.dataset.lang), setLanguage(event.target.dataset.lang);
    if (event.target.dataset.preview) preview(event.target);
  });

  // A picture is shown as soon as it is chosen or pasted.
  const preview = (input) => {
    const image = document.getElementById(input.dataset.preview), file = input.files[0];
    if (!image || !file) return;
    if (image.src.startsWith("blob:")) URL.revokeObjectURL(image.src);
    image.src = URL.createObjectURL(file);
    image.hidden = false;
  };
  document.addEventListener("paste", (event) => {
    const input = document.querySelector("input[type=file][data-preview]");
    if (!input || !event.clipboardData?.files.length) return;
    input.files = event.clipboardData.files;
    input.dispatchEvent(new Event("change", { bubbles: true }));
  });

  document.addEventListener("keydown", (event) => {
    const typing = event.target.closest("input, textarea, select");
    if (event.key === "/" && !typing) { const s = document.querySelector("main input[type=search]"); if (s) event.preventDefault(), s.focus(); }
    if (event.key === "Enter" && (event.metaKey || event.ctrlKey)) typing?.form?.requestSubmit();
  });
})();
