/** Sets the colours before the page is drawn: dark, unless this browser's user chose otherwise. */
(() => {
  const light = matchMedia("(prefers-color-scheme: light)");
  const apply = () => {
    let chosen = "dark";
    try {
      chosen = localStorage.getItem("mrknee.theme") ?? "dark";
    } catch {
      // no storage
    }
    const shown = chosen === "system" ? (light.matches ? "light" : "dark") : chosen;
    document.documentElement.dataset.theme = shown === "light" ? "light" : "dark";
  };
  apply();
  light.addEventListener("change", apply);
  document.addEventListener("mrknee-theme", apply);
})();
