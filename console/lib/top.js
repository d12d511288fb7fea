// What stands above every page: where one can go, who one is, language and colours.
import { html, useState } from "../vendor/preact.js";
import { actAs, readOnly, send } from "./api.js";
import { Look } from "./look.js";
import { People } from "./people.js";
import { Button, Dialog, Link, Tabs } from "./ui.js";
import { t } from "./words.js";

/** Log out; nothing of whoever was here stays in the page. */
export async function leave() {
  await send("POST", "/auth/logout").catch(() => {});
  location.hash = "";
  location.reload();
}

/** Pages that are found below another one. @type {Record<string, string>} */
const BELOW = { types: "tasks", schedules: "tasks", messages: "tasks" };

/** @param {{place: any, session: any}} props */
export function Top({ place, session }) {
  const [choosing, setChoosing] = useState(false);
  const current = BELOW[place.parts[0]] ?? place.parts[0] ?? session.home;
  const pages = ["items", "sites", "reports", "orders", "users", "tasks", ...(session.inspects ? ["services", "audit"] : [])];
  return html`
    <a class="skip" href="#main" onClick=${(/** @type {Event} */ event) => {
      event.preventDefault();
      document.getElementById("main")?.focus();
    }}>${t("skip")}</a>
    <header class="top">
      <${Link} to="/" class="brand">Siteworks<//>
      <${Tabs} label=${t("nav")} class="" of=${pages.map((name) => ({ to: `/${name}`, words: t(`nav.${name}`), isHere: name === current }))} />
      <div class="deeds end">
        <${Look} />
        ${session.me.id !== null && html`<${Link} to="/account">${session.me.name}<//>`}
        ${session.open
          ? html`<${Button} onClick=${() => setChoosing(true)}>${t("act_as")}<//>`
          : html`<${Button} onClick=${leave}>${t("logout")}<//>`}
      </div>
    </header>
    ${readOnly && html`<div class="banner" role="region" aria-label=${t("read_only")}>${t("read_only")}</div>`}
    ${actAs.get() && html`<div class="banner" role="region" aria-label=${t("act_as")}>${t("act_as.now", { name: session.me.name })}
      <${Button} class="plain" onClick=${() => choose(null)}>${t("act_as.end")}<//></div>`}
    <${Dialog} title=${t("act_as")} open=${choosing} onClose=${() => setChoosing(false)}><${People} onChoose=${(/** @type {any} */ user) => choose(user.id)} /><//>`;
}

/** @param {string | null} userId */
function choose(userId) {
  actAs.set(userId);
  location.hash = "";
  location.reload();
}
