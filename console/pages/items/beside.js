// Who watches a work item, and the orders, tasks and other items that it is linked with.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { Button, Choice, Field, Form, Link, Problem } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { ItemChoice, usePeople } from "./choices.js";
import { inspects, takesPart } from "./roles.js";

const PAGES = { item: "items", order: "orders", task: "tasks" };
const ID = /[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/i;

/** @param {{target: string, site: any, session: any}} props */
export function Watchers({ target, site, session }) {
  const live = useLive(`${target}/watchers`);
  const [asked, setAsked] = useState(false);
  const [person, setPerson] = useState("");
  const people = usePeople(asked ? site.id : null);
  const deed = useDeed();
  const watchers = live.data?.watchers ?? [];
  const me = session.me.id;
  const isOn = watchers.some((/** @type {any} */ one) => one.id === me);
  const address = (/** @type {string} */ id) => `${target}${path`/watchers/${id}`}`;
  const set = (/** @type {string} */ id, /** @type {boolean} */ on) => deed.run(() => send(on ? "PUT" : "DELETE", address(id))).then((made) => made && live.again());
  const done = () => {
    setAsked(false);
    live.again();
  };
  const others = people.filter((one) => !watchers.some((/** @type {any} */ watcher) => watcher.id === one.user_id));
  return html`<section aria-labelledby="watchers"><header class="title"><h2 id="watchers">${t("item.watchers")}</h2><div class="deeds">
      ${me !== null && site.role !== null && takesPart(site, session) && html`<${Button} busy=${deed.busy} onClick=${() => set(me, !isOn)}>${isOn ? t("item.unwatch") : t("item.watch")}<//>`}
      ${inspects(site, session) && html`<${Button} aria-expanded=${asked ? "true" : "false"} onClick=${() => setAsked(!asked)}>${t("item.watchers.add")}<//>`}</div></header>
    <${Problem} error=${live.error ?? deed.error} />
    ${live.data && watchers.length === 0 && html`<p class="soft">${t("item.watchers.none")}</p>`}
    <ul class="chips">${watchers.map((/** @type {any} */ one) => html`<li key=${one.id}>${one.name}
      ${one.id !== me && inspects(site, session) && html` <${Button} class="plain" aria-label=${t("item.watchers.remove", { name: one.name })} onClick=${() => set(one.id, false)}>✕<//>`}</li>`)}</ul>
    ${asked && html`<div class="narrow"><${Form} label=${t("item.watchers.add")} done=${done} does=${() => send("PUT", address(person))} request=${() => ["PUT", address(person)]}>
      <${Choice} label=${t("user.name")} value=${person} onChange=${setPerson} options=${[["", "–"], ...others.map((one) => [one.user_id, one.name])]} /><//></div>`}
  </section>`;
}

/** @param {{target: string, site: any, session: any}} props */
export function Links({ target, site, session }) {
  const live = useLive(`${target}/links`);
  const [asked, setAsked] = useState(false);
  const [kind, setKind] = useState("item");
  const [said, setSaid] = useState("");
  const deed = useDeed();
  const links = live.data?.links ?? [];
  const address = (/** @type {any} */ one) => `${target}${path`/links/${one.kind}/${one.target_id}`}`;
  const made = () => address({ kind, target_id: ID.exec(said)?.[0] ?? said });
  const done = () => {
    setSaid("");
    setAsked(false);
    live.again();
  };
  const remove = (/** @type {any} */ one) => deed.run(() => send("DELETE", address(one))).then((gone) => gone && live.again());
  return html`<section aria-labelledby="links"><header class="title"><h2 id="links">${t("item.links")}</h2>
      ${inspects(site, session) && html`<${Button} aria-expanded=${asked ? "true" : "false"} onClick=${() => setAsked(!asked)}>${t("item.links.add")}<//>`}</header>
    <${Problem} error=${live.error ?? deed.error} />
    ${live.data && links.length === 0 && html`<p class="soft">${t("item.links.none")}</p>`}
    <ul class="chips">${links.map((/** @type {any} */ one) => html`<li key=${one.target_id}>
      <${Link} to=${`/${PAGES[/** @type {"item"} */ (one.kind)]}/${one.target_id}`}>${word("link", one.kind)} …${one.target_id.slice(-6)}<//>
      ${inspects(site, session) && html` <${Button} class="plain" aria-label=${t("item.links.remove")} onClick=${() => remove(one)}>✕<//>`}</li>`)}</ul>
    ${asked && html`<div class="narrow"><${Form} label=${t("item.links.add")} done=${done} does=${() => send("PUT", made())} request=${() => ["PUT", made()]}>
      ${(/** @type {any} */ error) => html`<${Choice} label=${t("item.links.kind")} value=${kind} onChange=${(/** @type {string} */ one) => {
        setKind(one);
        setSaid("");
      }} options=${["item", "order", "task"].map((one) => [one, word("link", one)])} />
        ${kind === "item" ? html`<${ItemChoice} label=${t("link.item")} site=${site.id} value=${said} onChange=${setSaid} error=${error?.of?.("target_id")} />`
          : html`<${Field} label=${t("item.links.which")} hint=${t("item.links.hint")} required value=${said} error=${error?.of?.("target_id")} onInput=${(/** @type {any} */ event) => setSaid(event.target.value)} />`}`}
    <//></div>`}
  </section>`;
}
