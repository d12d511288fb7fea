// One user: who it is, their orders, tasks and work, and what administrators may do about the account.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Problem, Table } from "../../lib/ui.js";
import { day, money, t, word } from "../../lib/words.js";
import { COLUMNS as AUDIT_COLUMNS } from "../audit/entries.js";
import { KINDS as ORDER_KINDS } from "../orders/page.js";
import { Access } from "./access.js";
import { Roles } from "./roles.js";

/** @param {{id: string, session: any}} props */
export function User({ id, session }) {
  const target = path`/users/${id}`;
  const live = useLive(`${target}/details`);
  const tasks = useLive(`${target}/tasks`, { query: { limit: 10 } });
  const items = useLive("/work-items", { query: { assignee_id: id, limit: 10 } });
  const account = useLive(session.operates ? `${target}/account` : null);
  const audit = useLive(session.inspects ? "/audit" : null, { query: { subject: id, limit: 10 } });
  const [asked, setAsked] = useState(/** @type {string | null} */ (null));
  const { user, orders, orders_total: total } = live.data ?? {};
  const disabled = account.data?.disabled_at ?? null;
  const ables = disabled === null ? ["disable"] : ["enable"];
  const deeds = session.operates && user && account.data && ["roles", ...ables, "delete"].map(
    (deed) => html`<${Button} key=${deed} onClick=${() => setAsked(deed)}>${t(`user.${deed}`)}<//>`,
  );
  const done = () => {
    setAsked(null);
    if (asked === "delete") go("/users");
    else for (const one of [live, account, audit]) one.again();
  };
  /** @returns {[string, string]} */
  const request = () => (asked === "delete" ? ["DELETE", target] : ["POST", `${target}/${asked}`]);
  return html`<${Page} title=${user?.name ?? t("user")} deeds=${deeds} live=${live}>
    ${user && html`<div class="stack">
      ${disabled && html`<p><${Badge} kind="bad">${t("user.disabled")}<//> <${Moment} at=${disabled} /></p>`}
      <${Facts} of=${[
        ["id", html`<code>${user.id}</code>`],
        [t("user.email"), user.email],
        [t("user.roles"), user.roles?.map((/** @type {string} */ role) => word("role", role)).join(", ")],
        [t("created"), user.created_at && html`<${Moment} at=${user.created_at} />`],
      ]} />
      ${session.operates && !session.open && html`<${Access} user=${user} account=${account} />`}
      <${Part} title=${t("nav.items")} live=${items} all="/items" query=${{ view: "all", assignee_id: id }} rows="work_items" columns=${[
        [t("item"), (/** @type {any} */ item) => html`<${Link} to=${`/items/${item.id}`}>${item.key ? `${item.key} ` : ""}${item.title}<//>`],
        [t("item.state"), (/** @type {any} */ item) => html`${word("state", item.state)} ${item.overdue && html`<${Badge} kind="bad">${t("item.overdue")}<//>`}`],
        [t("item.due"), (/** @type {any} */ item) => day(item.due_on)],
      ]} />
      <${Part} title=${t("nav.orders")} live=${{ data: orders && { total, orders: orders.slice(0, 10) }, error: null }} all="/orders" query=${{ user_id: id }} rows="orders" columns=${[
        [t("order"), (/** @type {any} */ order) => html`<${Link} to=${`/orders/${order.id}`}>${order.items[0].product}<//>`],
        [t("order.status"), (/** @type {any} */ order) => html`<${Badge} kind=${ORDER_KINDS[order.status]}>${word("order", order.status)}<//>`],
        [t("order.total"), (/** @type {any} */ order) => money(order.total_amount), "number"],
        [t("created"), (/** @type {any} */ order) => html`<${Moment} at=${order.created_at} />`],
      ]}>${live.data.partial && html`<p class="unsure">${t("user.orders.away")}</p>`}<//>
      <${Part} title=${t("nav.tasks")} live=${tasks} all="/tasks" query=${{ user_id: id }} rows="tasks" columns=${[
        [t("task.type"), (/** @type {any} */ task) => html`<${Link} to=${`/tasks/${task.id}`}>${task.title ?? task.task_type}<//>`],
        [t("task.status"), (/** @type {any} */ task) => word("task", task.status)],
        [t("created"), (/** @type {any} */ task) => html`<${Moment} at=${task.created_at} />`],
      ]} />
      ${session.inspects && html`<section><header class="title"><h2>${t("nav.audit")}</h2><div class="deeds">
          <${Link} to="/audit" query=${{ subject: id }}>${t("audit.of")}<//> <${Link} to="/audit" query=${{ actor: id }}>${t("audit.by")}<//></div></header>
        <${Problem} error=${audit.error} />
        ${audit.data && html`<${Table} caption=${t("nav.audit")} rows=${audit.data.entries} columns=${AUDIT_COLUMNS.filter((_, at) => at !== 3)} />`}</section>`}
      <${Dialog} title=${t(`user.${asked ?? "roles"}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        ${asked === "roles" ? html`<${Roles} user=${user} done=${done} />` : html`<p>${t(`user.${asked}.what`, { name: user.name })}</p>
          <${Form} danger=${asked !== "enable"} label=${t(`user.${asked}`)} done=${done} does=${() => send(...request())} request=${request} />`}
      <//>
    </div>`}
  <//>`;
}

/** The first of something that is theirs, and where the rest is. @param {any} props */
function Part({ title, live, all, query, rows, columns, children }) {
  const count = live.data?.total ?? 0;
  return html`<section><header class="title"><h2>${title}</h2>${count > 0 && html`<${Link} to=${all} query=${query}>${t("list.all", { count })}<//>`}</header>
    ${children}<${Problem} error=${live.error} />
    ${live.data && html`<${Table} caption=${title} rows=${live.data[rows]} columns=${columns} />`}</section>`;
}
