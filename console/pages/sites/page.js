// Building sites: the list; one site is in site.js.
import { html, useState } from "../../vendor/preact.js";
import { send } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { go } from "../../lib/router.js";
import { Button, Dialog, Field, Form, Link, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { Country, Zone } from "./settings.js";
import { Site } from "./site.js";

/** @param {any} props */
export default function Sites(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Site} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ session }) {
  const list = useList("/sites", "sites");
  const [opening, setOpening] = useState(false);
  return html`<${Page} title=${t("nav.sites")} live=${list} deeds=${session.operates && html`<${Button} class="main" onClick=${() => setOpening(true)}>${t("site.open")}<//>`}>
    <${ListTable} list=${list} caption=${t("nav.sites")} empty=${t("sites.none")} columns=${[
      [t("site"), (/** @type {any} */ site) => html`<${Link} to=${`/sites/${site.id}`}>${site.name}<//>`, "name"],
      [t("site.key"), (/** @type {any} */ site) => site.key],
      [t("site.role"), (/** @type {any} */ site) => site.role && word("member", site.role)],
      [t("site.zone"), (/** @type {any} */ site) => site.time_zone],
    ]} />
    <${Dialog} title=${t("site.open")} open=${opening} onClose=${() => setOpening(false)}><${Open} /><//>
  <//>`;
}

function Open() {
  const [site, setSite] = useState(/** @type {Record<string, string>} */ ({ key: "", name: "", time_zone: Intl.DateTimeFormat().resolvedOptions().timeZone, calendar: "", email: "", organisation: "", position: "" }));
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setSite({ ...site, [name]: event.target.value });
  const body = () => ({
    key: site.key.toUpperCase(), name: site.name, time_zone: site.time_zone, ...(site.calendar && { calendar: site.calendar.toUpperCase() }),
    manager: { email: site.email, organisation: site.organisation, position: site.position },
  });
  return html`<${Form} label=${t("site.open")} does=${() => send("POST", "/sites", body())} done=${(/** @type {any} */ made) => go(`/sites/${made.id}`)} request=${() => ["POST", "/sites", body()]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("site.name")} required value=${site.name} error=${error?.of?.("name")} onInput=${set("name")} />
      <${Field} label=${t("site.key")} hint=${t("site.key.hint")} required value=${site.key} error=${error?.of?.("key")} onInput=${set("key")} />
      <${Zone} value=${site.time_zone} error=${error?.of?.("time_zone")} onInput=${set("time_zone")} />
      <${Country} value=${site.calendar} error=${error?.of?.("calendar")} onInput=${set("calendar")} />
      <${Field} label=${t("site.manager")} type="email" required value=${site.email} error=${error?.of?.("manager.email")} onInput=${set("email")} />
      <${Field} label=${t("item.organisation")} value=${site.organisation} error=${error?.of?.("manager.organisation")} onInput=${set("organisation")} />
      <${Field} label=${t("site.position")} value=${site.position} error=${error?.of?.("manager.position")} onInput=${set("position")} />`}
  <//>`;
}
