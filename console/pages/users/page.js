// Users: the list; one user is in user.js.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { refine } from "../../lib/router.js";
import { Field, Link, Moment, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { User } from "./user.js";

/** @param {any} props */
export default function Users(props) {
  const [, id] = props.place.parts;
  return id ? html`<${User} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place }) {
  const { q = "" } = place.query;
  const list = useList("/users", "users", { query: { q } });
  return html`<${Page} title=${t("nav.users")} live=${list}>
    <div class="filters"><${Field} label=${t("user.search")} type="search" value=${q} onInput=${(/** @type {any} */ event) => refine({ q: event.target.value })} /></div>
    <${ListTable} list=${list} caption=${t("nav.users")} columns=${[
      [t("user.name"), (/** @type {any} */ user) => html`<${Link} to=${`/users/${user.id}`}>${user.name}<//>`],
      [t("user.email"), (/** @type {any} */ user) => user.email],
      [t("user.roles"), (/** @type {any} */ user) => user.roles?.map((/** @type {string} */ role) => word("role", role)).join(", ")],
      [t("created"), (/** @type {any} */ user) => html`<${Moment} at=${user.created_at} />`],
    ]} />
  <//>`;
}
