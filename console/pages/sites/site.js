// One site: its board, its people.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { ListTable, useList } from "../../lib/list.js";
import { refine } from "../../lib/router.js";
import { Button, Choice, Dialog, Field, Form, Link, Page, Problem } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { ItemList } from "../items/list.js";

const STATES = ["open", "in_progress", "returned", "ready", "disputed", "closed", "void", "draft"];

/** @param {any} props */
export function Site({ id, place, session }) {
  const live = useLive(path`/sites/${id}`);
  const people = useList(path`/sites/${id}/members`, "members");
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const { state = "", overdue = "", organisation = "", q = "" } = place.query;
  const leads = session.operates || live.data?.role === "manager";
  const organisations = [...new Set(people.rows.map((/** @type {any} */ one) => one.organisation).filter(Boolean))].sort();
  const again = () => {
    setAsked(null);
    people.again();
  };
  return html`<${Page} title=${live.data?.name ?? t("site")} live=${live} deeds=${html`<${Link} class="button main" to="/items/new" query=${{ site_id: id }}>${t("item.new")}<//>
    <${Link} class="button" to="/reports" query=${{ site_id: id }}>${t("nav.reports")}<//>`}>
    <div class="stack">
      <section aria-labelledby="board"><h2 id="board">${t("nav.items")}</h2>
        <div class="filters">
          <${Field} label=${t("item.search")} type="search" value=${q} onInput=${(/** @type {any} */ event) => refine({ q: event.target.value })} />
          <${Choice} label=${t("item.state")} value=${state} onChange=${(/** @type {string} */ chosen) => refine({ state: chosen })} options=${[["", t("any")], ...STATES.map((one) => [one, word("state", one)])]} />
          <${Choice} label=${t("item.overdue")} value=${overdue} onChange=${(/** @type {string} */ chosen) => refine({ overdue: chosen })} options=${[["", t("any")], ["true", t("yes")], ["false", t("no")]]} />
          ${organisations.length > 0 && html`<${Choice} label=${t("item.organisation")} value=${organisation} onChange=${(/** @type {string} */ chosen) => refine({ organisation: chosen })} options=${[["", t("any")], ...organisations.map((one) => [one, one])]} />`}
        </div>
        <${ItemList} query=${{ site_id: id, state, overdue, organisation, q }} session=${session} /></section>
      <section aria-labelledby="people"><header class="title"><h2 id="people">${t("site.people")}</h2>${leads && html`<${Button} onClick=${() => setAsked("add")}>${t("site.people.add")}<//>`}</header>
        <${Problem} error=${people.error} />
        <${ListTable} caption=${t("site.people")} list=${people} columns=${[
          [t("user.name"), (/** @type {any} */ one) => one.name],
          [t("site.role"), (/** @type {any} */ one) => word("member", one.role)],
          [t("item.organisation"), (/** @type {any} */ one) => one.organisation],
          [t("site.position"), (/** @type {any} */ one) => one.position],
          ["", (/** @type {any} */ one) => leads && html`<${Button} onClick=${() => setAsked({ remove: one })}>${t("site.people.remove")}<//>`],
        ]} /></section>
      <${Dialog} title=${asked?.remove ? t("site.people.remove") : t("site.people.add")} open=${asked !== null} onClose=${() => setAsked(null)}>
        ${asked === "add" && html`<${Add} site=${id} done=${again} />`}
        ${asked?.remove && html`<p>${t("site.people.remove.what", { name: asked.remove.name })}</p><${Form} danger label=${t("site.people.remove")} done=${again}
          does=${() => send("DELETE", path`/sites/${id}/members/${asked.remove.user_id}`)} request=${() => ["DELETE", path`/sites/${id}/members/${asked.remove.user_id}`]} />`}
      <//>
    </div>
  <//>`;
}

/** @param {{site: string, done: () => void}} props */
function Add({ site, done }) {
  const [person, setPerson] = useState(/** @type {Record<string, string>} */ ({ email: "", role: "engineer", organisation: "", position: "" }));
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setPerson({ ...person, [name]: event?.target ? event.target.value : event });
  const target = path`/sites/${site}/members`;
  return html`<${Form} label=${t("site.people.add")} done=${done} does=${() => send("POST", target, person)} request=${() => ["POST", target, person]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("user.email")} type="email" required value=${person.email} error=${error?.of?.("email")} onInput=${set("email")} />
      <${Choice} label=${t("site.role")} value=${person.role} onChange=${set("role")} options=${["engineer", "manager", "executive", "customer", "contractor"].map((one) => [one, word("member", one)])} />
      <${Field} label=${t("item.organisation")} value=${person.organisation} error=${error?.of?.("organisation")} onInput=${set("organisation")} />
      <${Field} label=${t("site.position")} value=${person.position} error=${error?.of?.("position")} onInput=${set("position")} />`}
  <//>`;
}
