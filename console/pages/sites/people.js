// The people of a site, and what each is there.
import { html, useId, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Choice, Dialog, Field, Form, Problem } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { employers } from "../items/choices.js";
import { leads, takesPart } from "../items/roles.js";

const ROLES = ["engineer", "manager", "executive", "customer", "contractor"];

/** @param {any} props */
export default function People({ site, session }) {
  const people = useList(path`/sites/${site.id}/members`, "members");
  const [asked, setAsked] = useState(/** @type {{deed: string, person?: any} | null} */ (null));
  const isLead = leads(site, session);
  const me = session.me.id;
  const done = () => {
    const left = asked?.deed === "remove" && asked.person.user_id === me && !session.inspects;
    setAsked(null);
    if (left) go("/sites");
    else people.again();
  };
  const remove = (/** @type {any} */ one) => path`/sites/${site.id}/members/${one.user_id}`;
  const title = asked === null ? "" : asked.person?.user_id === me && asked.deed === "remove" ? t("site.people.leave") : t(`site.people.${asked.deed}`);
  return html`<section aria-labelledby="people"><header class="title"><h2 id="people">${t("site.people")}</h2><div class="deeds">
      ${isLead && html`<${Button} class="main" onClick=${() => setAsked({ deed: "add" })}>${t("site.people.add")}<//>`}</div></header>
    <${Problem} error=${people.error} />
    <${ListTable} caption=${t("site.people")} list=${people} columns=${[
      [t("user.name"), (/** @type {any} */ one) => html`${one.name}${one.disabled && html` <${Badge} kind="unsure">${t("site.people.disabled")}<//>`}`, "name"],
      [t("site.role"), (/** @type {any} */ one) => word("member", one.role)],
      [t("item.organisation"), (/** @type {any} */ one) => one.organisation],
      [t("site.position"), (/** @type {any} */ one) => one.position],
      ["", (/** @type {any} */ one) => html`<div class="deeds">
        ${isLead && html`<${Button} onClick=${() => setAsked({ deed: "change", person: one })}>${t("site.people.change")}<//>`}
        ${one.user_id === me && takesPart(site, session) ? html`<${Button} onClick=${() => setAsked({ deed: "remove", person: one })}>${t("site.people.leave")}<//>`
          : isLead && html`<${Button} onClick=${() => setAsked({ deed: "remove", person: one })}>${t("site.people.remove")}<//>`}</div>`],
    ]} />
    <${Dialog} title=${title} open=${asked !== null} onClose=${() => setAsked(null)}>
      ${asked?.deed === "remove" ? html`<p>${t(asked.person.user_id === me ? "site.people.leave.what" : "site.people.remove.what", { name: asked.person.name })}</p>
        <${Form} danger label=${title} done=${done} does=${() => send("DELETE", remove(asked.person))} request=${() => ["DELETE", remove(asked.person)]} />`
        : asked !== null && html`<${Person} site=${site} person=${asked.person} known=${employers(people.rows)} done=${done} />`}
    <//>
  </section>`;
}

/** Somebody to be added, or changed. @param {{site: any, person?: any, known: string[], done: () => void}} props known: for whom others work */
function Person({ site, person, known, done }) {
  const list = useId();
  const before = person ?? { role: "engineer", organisation: "", position: "" };
  const [said, setSaid] = useState(/** @type {Record<string, string>} */ ({ email: "", role: before.role, organisation: before.organisation ?? "", position: before.position ?? "" }));
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setSaid({ ...said, [name]: event?.target ? event.target.value : event });
  const [method, target] = person ? ["PUT", path`/sites/${site.id}/members/${person.user_id}`] : ["POST", path`/sites/${site.id}/members`];
  const body = () => (person ? Object.fromEntries(Object.entries(said).filter(([name, value]) => name !== "email" && value !== before[name])) : said);
  const loses = person && !["executive", "customer"].includes(before.role) && ["executive", "customer"].includes(said.role);
  return html`<${Form} label=${person ? t("save") : t("site.people.add")} done=${done} does=${() => send(method, target, body())} request=${() => [method, target, body()]}>
    ${(/** @type {any} */ error) => html`
      ${person ? html`<p><b>${person.name}</b></p>` : html`<${Field} label=${t("user.email")} hint=${t("site.people.hint")} type="email" required value=${said.email} error=${error?.of?.("email")} onInput=${set("email")} />`}
      <${Choice} label=${t("site.role")} value=${said.role} onChange=${set("role")} options=${ROLES.map((one) => [one, word("member", one)])} />
      <p class="soft">${t(`member.${said.role}.what`)}</p>
      ${loses && html`<p class="unsure">${t("site.people.loses")}</p>`}
      <${Field} label=${t("item.organisation")} list=${list} value=${said.organisation} maxlength="200" error=${error?.of?.("organisation")} onInput=${set("organisation")} />
      <datalist id=${list}>${known.map((one) => html`<option value=${one} />`)}</datalist>
      <${Field} label=${t("site.position")} value=${said.position} maxlength="200" error=${error?.of?.("position")} onInput=${set("position")} />`}
  <//>`;
}
