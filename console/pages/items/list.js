// A list of work items.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { Badge, Link, Moment, Problem } from "../../lib/ui.js";
import { day, t, word } from "../../lib/words.js";

/** @type {Record<string, string>} */
export const KINDS = { closed: "good", done: "good", returned: "bad", disputed: "bad", ready: "unsure", in_progress: "unsure" };

/** @param {{item: any}} props */
export function State({ item }) {
  return html`<${Badge} kind=${KINDS[item.state]}>${word("state", item.state)}<//>
    ${item.overdue && html` <${Badge} kind="bad">${t("item.overdue")}<//>`}`;
}

/** What a customer sees of an item has no key. @param {{query: Record<string, unknown>, seconds?: number}} props */
export function ItemList({ query, seconds = 15 }) {
  const list = useList("/work-items", "work_items", { query, seconds });
  return html`<${Problem} error=${list.error} />
    ${list.data === null && !list.error && html`<p class="soft" aria-busy="true">${t("loading")}</p>`}
    ${list.data !== null && html`<${ListTable} list=${list} caption=${t("nav.items")} columns=${[
      [t("item"), (/** @type {any} */ item) => html`<${Link} to=${`/items/${item.id}`}>${item.key ? `${item.key} ` : ""}${item.title}<//>`],
      [t("item.state"), (/** @type {any} */ item) => html`<${State} item=${item} />`],
      [t("item.due"), (/** @type {any} */ item) => day(item.due_on)],
      [t("item.place"), (/** @type {any} */ item) => item.location ?? item.place ?? ""],
      [t("item.assignee"), (/** @type {any} */ item) => item.assignee?.name || item.organisation || ""],
      [t("created"), (/** @type {any} */ item) => html`<${Moment} at=${item.created_at} />`],
    ]} />`}`;
}
