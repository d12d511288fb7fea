// Orders: the list; one order with its lines and next steps is in order.js, a new one in new.js.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { PersonFilter, useNames } from "../../lib/people.js";
import { link, refine } from "../../lib/router.js";
import { Badge, Choice, Field, Link, Moment, Page } from "../../lib/ui.js";
import { dayBegins, money, t, word } from "../../lib/words.js";
import { NewOrder } from "./new.js";
import { Order } from "./order.js";

/** @type {Record<string, string>} */
export const KINDS = { in_progress: "unsure", completed: "good", cancelled: "bad" };

/** @param {any} props */
export default function Orders(props) {
  const [, id] = props.place.parts;
  if (id === "new") return html`<${NewOrder} ...${props} />`;
  return id ? html`<${Order} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place, session }) {
  const { status = "", product = "", user_id = "", from = "", to = "", sort = "" } = place.query;
  const query = { status, product, user_id, sort, created_from: dayBegins(from), created_to: dayBegins(to, 1) };
  const list = useList("/orders", "orders", { query, seconds: 15 });
  const names = useNames(session.inspects ? list.rows.map((/** @type {any} */ order) => order.user_id) : []);
  const sum = list.data?.total_amount;
  const changes = session.operates || !session.inspects;
  return html`<${Page} title=${t("nav.orders")} live=${list} deeds=${changes && html`<a class="button main" href=${link("/orders/new", { user_id })}>${t("order.new")}</a>`}>
    <div class="filters">
      <${Field} label=${t("order.product")} type="search" value=${product} onChange=${(/** @type {any} */ event) => refine({ product: event.target.value })} />
      <${Choice} label=${t("order.status")} value=${status} onChange=${(/** @type {string} */ chosen) => refine({ status: chosen })}
        options=${[["", t("any")], ...["created", "in_progress", "completed", "cancelled"].map((one) => [one, word("order", one)])]} />
      ${session.inspects && html`<${PersonFilter} label=${t("order.user")} name="user_id" id=${user_id} />`}
      <${Field} label=${t("audit.from")} type="date" value=${from} max=${to} onChange=${(/** @type {any} */ event) => refine({ from: event.target.value })} />
      <${Field} label=${t("audit.to")} type="date" value=${to} min=${from} onChange=${(/** @type {any} */ event) => refine({ to: event.target.value })} />
      <${Choice} label=${t("sort")} value=${sort} onChange=${(/** @type {string} */ chosen) => refine({ sort: chosen })}
        options=${[["", t("sort.newest")], ["created_at", t("sort.oldest")], ["-total_amount", t("sort.dearest")], ["total_amount", t("sort.cheapest")]]} />
    </div>
    ${sum != null && html`<p>${t("order.sum", { sum: money(sum) })}</p>`}
    <${ListTable} list=${list} caption=${t("nav.orders")} columns=${[
      [t("order"), (/** @type {any} */ order) => html`<${Link} to=${`/orders/${order.id}`}>${order.items[0].product}${order.items.length > 1 ? ` + ${order.items.length - 1}` : ""}<//>`, "name"],
      [t("order.status"), (/** @type {any} */ order) => html`<${Badge} kind=${KINDS[order.status]}>${word("order", order.status)}<//>`, "brief"],
      ...(session.inspects ? [[t("order.user"), (/** @type {any} */ order) => html`<${Link} to=${`/users/${order.user_id}`}>${names[order.user_id] ?? html`<code>${order.user_id}</code>`}<//>`, "brief"]] : []),
      [t("order.total"), (/** @type {any} */ order) => money(order.total_amount), "number brief when"],
      [t("created"), (/** @type {any} */ order) => html`<${Moment} at=${order.created_at} />`, "brief when"],
    ]} />
  <//>`;
}
