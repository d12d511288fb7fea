// Language and colours.
import { html } from "../vendor/preact.js";
import { Button } from "./ui.js";
import { language, speak, t } from "./words.js";

const THEMES = ["", "light", "dark"];
const theme = localStorage.getItem("theme") ?? "";
if (theme) document.documentElement.dataset.theme = theme;

function nextTheme() {
  const now = document.documentElement.dataset.theme ?? "";
  const next = THEMES[(THEMES.indexOf(now) + 1) % THEMES.length];
  document.documentElement.dataset.theme = next;
  localStorage.setItem("theme", next);
}

export function Look() {
  return html`<${Button} class="plain" onClick=${nextTheme} aria-label=${t("theme")} title=${t("theme")}>◐<//>
    <${Button} class="plain" onClick=${() => speak(language === "en" ? "ru" : "en")} lang=${language === "en" ? "ru" : "en"}>${language === "en" ? "Русский" : "English"}<//>`;
}
