// Language and colours.
import { html } from "../vendor/preact.js";
import { Button } from "./ui.js";
import { language, speak, t } from "./words.js";

const theme = localStorage.getItem("theme") ?? "";
if (theme) document.documentElement.dataset.theme = theme;

/** The other colours; those of the system are followed again once they are chosen. */
function otherTheme() {
  const system = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
  const other = (document.documentElement.dataset.theme || system) === "dark" ? "light" : "dark";
  const kept = other === system ? "" : other;
  document.documentElement.dataset.theme = kept;
  localStorage.setItem("theme", kept);
}

export function Look() {
  return html`<${Button} class="plain" onClick=${otherTheme} aria-label=${t("theme")} title=${t("theme")}>◐<//>
    <${Button} class="plain" onClick=${() => speak(language === "en" ? "ru" : "en")} lang=${language === "en" ? "ru" : "en"}>${language === "en" ? "Русский" : "English"}<//>`;
}
