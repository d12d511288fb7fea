// One user: who it is, their orders and tasks, and what administrators may do about the account.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Problem, Table } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { KINDS as ORDER_KINDS } from "../orders/page.js";
import { KINDS as TASK_KINDS } from "../tasks/page.js";

/** @param {{id: string, session: any}} props */
export function User({ id, session }) {
  const live = useLive(path`/users/${id}/details`);
  const tasks = useLive(path`/users/${id}/tasks`, { query: { limit: 10 } });
  const [asked, setAsked] = useState(/** @type {string | null} */ (null));
  const { user, orders, orders_total: total } = live.data ?? {};
  const deeds = session.operates && !session.open && user && html`
    <${Button} onClick=${() => setAsked("roles")}>${t("user.roles.change")}<//>
    <${Button} onClick=${() => setAsked("disable")}>${t("user.disable")}<//>
    <${Button} onClick=${() => setAsked("enable")}>${t("user.enable")}<//>`;
  const done = () => {
    setAsked(null);
    live.again();
  };
  return html`<${Page} title=${user?.name ?? t("user")} deeds=${deeds} live=${live}>
    ${user && html`<div class="stack">
      <${Facts} of=${[
        ["id", html`<code>${user.id}</code>`],
        [t("user.email"), user.email],
        [t("user.roles"), user.roles?.map((/** @type {string} */ role) => word("role", role)).join(", ")],
        [t("created"), html`<${Moment} at=${user.created_at} />`],
      ]} />
      <section><header class="title"><h2>${t("nav.orders")}</h2>${total > 0 && html`<${Link} to="/orders" query=${{ user_id: id }}>${t("list.all", { count: total })}<//>`}</header>
        ${live.data.partial && html`<p class="unsure">${t("user.orders.away")}</p>`}
        ${orders && html`<${Table} caption=${t("nav.orders")} rows=${orders.slice(0, 10)} columns=${[
          [t("order"), (/** @type {any} */ order) => html`<${Link} to=${`/orders/${order.id}`}>${order.items[0].product}<//>`],
          [t("order.status"), (/** @type {any} */ order) => html`<${Badge} kind=${ORDER_KINDS[order.status]}>${word("order", order.status)}<//>`],
          [t("order.total"), (/** @type {any} */ order) => order.total_amount, "number"],
        ]} />`}</section>
      <section><header class="title"><h2>${t("nav.tasks")}</h2>${tasks.data?.total > 0 && html`<${Link} to="/tasks" query=${{ user_id: id }}>${t("list.all", { count: tasks.data.total })}<//>`}</header>
        <${Problem} error=${tasks.error} />
        ${tasks.data && html`<${Table} caption=${t("nav.tasks")} rows=${tasks.data.tasks} columns=${[
          [t("task.type"), (/** @type {any} */ task) => html`<${Link} to=${`/tasks/${task.id}`}>${task.title ?? task.task_type}<//>`],
          [t("task.status"), (/** @type {any} */ task) => html`<${Badge} kind=${TASK_KINDS[task.status]}>${word("task", task.status)}<//>`],
          [t("created"), (/** @type {any} */ task) => html`<${Moment} at=${task.created_at} />`],
        ]} />`}</section>
      <${Dialog} title=${t(`user.${asked}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        ${asked === "roles" ? html`<${Roles} user=${user} done=${done} />` : html`<p>${t(`user.${asked}.what`, { name: user.name })}</p>
          <${Form} danger=${asked === "disable"} label=${t(`user.${asked}`)} done=${done} does=${() => send("POST", path`/users/${id}/${asked}`)}
            request=${() => ["POST", path`/users/${id}/${asked}`]} />`}
      <//>
    </div>`}
  <//>`;
}

/** @param {{user: any, done: () => void}} props */
function Roles({ user, done }) {
  const [roles, setRoles] = useState(/** @type {string[]} */ (user.roles));
  const target = path`/users/${user.id}`;
  const toggle = (/** @type {string} */ role) => setRoles(roles.includes(role) ? roles.filter((one) => one !== role) : [...roles, role]);
  return html`<${Form} label=${t("save")} done=${done} does=${() => send("PUT", target, { roles })} request=${() => ["PUT", target, { roles }]}>
    ${["user", "auditor", "admin"].map((role) => html`<label class="check" key=${role}>
      <input type="checkbox" checked=${roles.includes(role)} onChange=${() => toggle(role)} /> ${word("role", role)}</label>`)}
  <//>`;
}
