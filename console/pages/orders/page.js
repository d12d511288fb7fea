// Orders: the list; one order with its lines and next steps is in order.js.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { refine } from "../../lib/router.js";
import { Badge, Choice, Field, Link, Moment, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { Order } from "./order.js";

/** @type {Record<string, string>} */
export const KINDS = { in_progress: "unsure", completed: "good", cancelled: "bad" };

/** @param {any} props */
export default function Orders(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Order} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place }) {
  const { status = "", product = "", user_id = "" } = place.query;
  const list = useList("/orders", "orders", { query: { status, product, user_id } });
  return html`<${Page} title=${t("nav.orders")} live=${list}>
    <div class="filters">
      <${Field} label=${t("order.product")} type="search" value=${product} onChange=${(/** @type {any} */ event) => refine({ product: event.target.value })} />
      <${Choice} label=${t("order.status")} value=${status} onChange=${(/** @type {string} */ chosen) => refine({ status: chosen })}
        options=${[["", t("any")], ...["created", "in_progress", "completed", "cancelled"].map((one) => [one, word("order", one)])]} />
    </div>
    <${ListTable} list=${list} caption=${t("nav.orders")} columns=${[
      [t("order"), (/** @type {any} */ order) => html`<${Link} to=${`/orders/${order.id}`}>${order.items[0].product}${order.items.length > 1 ? ` + ${order.items.length - 1}` : ""}<//>`],
      [t("order.status"), (/** @type {any} */ order) => html`<${Badge} kind=${KINDS[order.status]}>${word("order", order.status)}<//>`],
      [t("order.total"), (/** @type {any} */ order) => order.total_amount, "number"],
      [t("created"), (/** @type {any} */ order) => html`<${Moment} at=${order.created_at} />`],
    ]} />
  <//>`;
}
