// Users: the list, and a new one; one user is in user.js.
import { html, useState } from "../../vendor/preact.js";
import { send } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { go, refine } from "../../lib/router.js";
import { Button, Choice, Dialog, Field, Form, Link, Moment, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { RoleBoxes, ROLES } from "./roles.js";
import { User } from "./user.js";

/** @param {any} props */
export default function Users(props) {
  const [, id] = props.place.parts;
  return id ? html`<${User} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place, session }) {
  const { q = "", role = "", sort = "" } = place.query;
  const [making, setMaking] = useState(false);
  const list = useList("/users", "users", { query: { q, role, sort } });
  const made = (/** @type {any} */ user) => go(`/users/${user.id}`);
  return html`<${Page} title=${t("nav.users")} live=${list} deeds=${session.operates && html`<${Button} class="main" onClick=${() => setMaking(true)}>${t("user.new")}<//>`}>
    <div class="filters">
      <${Field} label=${t("user.search")} type="search" value=${q} onInput=${(/** @type {any} */ event) => refine({ q: event.target.value })} />
      ${session.inspects && html`<${Choice} label=${t("user.roles")} value=${role} onChange=${(/** @type {string} */ chosen) => refine({ role: chosen })}
        options=${[["", t("any")], ...ROLES.map((one) => [one, word("role", one)])]} />`}
      <${Choice} label=${t("sort")} value=${sort} onChange=${(/** @type {string} */ chosen) => refine({ sort: chosen })}
        options=${[["", t("sort.newest")], ["created_at", t("sort.oldest")], ["name", t("user.name")], ...(session.inspects ? [["email", t("user.email")]] : [])]} />
    </div>
    <${ListTable} list=${list} caption=${t("nav.users")} columns=${[
      [t("user.name"), (/** @type {any} */ user) => html`<${Link} to=${`/users/${user.id}`}>${user.name}<//>`, "name"],
      [t("user.email"), (/** @type {any} */ user) => user.email, "brief"],
      [t("user.roles"), (/** @type {any} */ user) => user.roles?.map((/** @type {string} */ one) => word("role", one)).join(", "), "brief"],
      [t("created"), (/** @type {any} */ user) => html`<${Moment} at=${user.created_at} />`, "brief when"],
    ]} />
    <${Dialog} title=${t("user.new")} open=${making} onClose=${() => setMaking(false)}><${NewUser} done=${made} /><//>
  <//>`;
}

/** @param {{done: (user: any) => void}} props */
function NewUser({ done }) {
  const [email, setEmail] = useState("");
  const [name, setName] = useState("");
  const [roles, setRoles] = useState(["user"]);
  const body = { email, name, roles };
  return html`<${Form} label=${t("user.new")} done=${done} does=${() => send("POST", "/users", body)} request=${() => ["POST", "/users", body]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("user.name")} required maxlength="200" autocomplete="off" autofocus value=${name} error=${error?.of?.("name")} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
      <${Field} label=${t("user.email")} type="email" required autocomplete="off" value=${email} error=${error?.of?.("email")} onInput=${(/** @type {any} */ event) => setEmail(event.target.value)} />
      <${RoleBoxes} roles=${roles} onChange=${setRoles} />`}
  <//>`;
}
