// Tasks: what waits, runs and has ended; one task is in task.js.
import { html, useState } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { useLive } from "../../lib/live.js";
import { refine } from "../../lib/router.js";
import { Badge, Button, Choice, Dialog, Facts, Field, Link, Moment, Page, Table } from "../../lib/ui.js";
import { duration, number, t, word } from "../../lib/words.js";
import { Many } from "./many.js";
import { KINDS, Rooms, STATUSES, TypeNames, counted } from "./rooms.js";
import { Task } from "./task.js";
import { why } from "./waiting.js";

export { KINDS };

/** @param {any} props */
export default function Tasks(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Task} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place, session }) {
  const { status = "", task_type = "", user_id = "" } = place.query;
  const list = useList("/tasks", "tasks", { query: { status, task_type, user_id, light: true }, seconds: 3 });
  const { data: stats } = useLive("/tasks/stats", { seconds: 3 });
  const { data: types } = useLive("/task-types", { query: { limit: 100 }, seconds: 15 });
  const [asked, setAsked] = useState(/** @type {"retry" | "cancel" | null} */ (null));
  const filter = Object.fromEntries(Object.entries({ status, task_type, user_id }).filter(([, value]) => value));
  const deeds = ["retry", "cancel"].filter((deed) => !status || (deed === "retry" ? ["failed", "cancelled"] : ["pending", "processing"]).includes(status));
  const close = () => {
    setAsked(null);
    list.again();
  };
  return html`<${Page} title=${t("nav.tasks")} live=${list}><div class="stack">
    <${Rooms} current="tasks" session=${session} />
    ${stats && html`<${Counts} stats=${stats} />`}
    <div class="filters">
      <${Choice} label=${t("task.status")} value=${status} onChange=${(/** @type {string} */ chosen) => refine({ status: chosen })}
        options=${[["", t("any")], ...STATUSES.map((one) => [one, word("task", one)])]} />
      <${Field} label=${t("task.type")} value=${task_type} list="types" maxlength="50" onChange=${(/** @type {any} */ event) => refine({ task_type: event.target.value.trim() })} />
      ${session.inspects && html`<${Field} label=${t("task.owner")} value=${user_id} error=${list.error?.of?.("user_id")} onChange=${(/** @type {any} */ event) => refine({ user_id: event.target.value.trim() })} />`}
      <${TypeNames} id="types" types=${types} />
    </div>
    ${session.operates && html`<div class="deeds">${deeds.map((deed) => html`<${Button} key=${deed} onClick=${() => setAsked(/** @type {any} */ (deed))}>${t(`many.${deed}.all`)}<//>`)}</div>`}
    <${ListTable} list=${list} caption=${t("nav.tasks")} columns=${[
      [t("task.type"), (/** @type {any} */ task) => html`<${Link} to=${`/tasks/${task.id}`}>${task.title ?? task.task_type}<//>${task.title && html` <span class="soft">${task.task_type}</span>`}`, "name"],
      [t("task.status"), (/** @type {any} */ task) => html`<${Badge} kind=${KINDS[task.status]}>${word("task", task.status)}<//>`, "brief"],
      [t("task.progress"), (/** @type {any} */ task) => (task.status === "processing" ? `${number(task.progress.percent)} % ${task.progress.message ?? ""}` : task.status === "pending" ? why(task, types, stats, session) : task.error), "brief"],
      [t("task.attempts"), (/** @type {any} */ task) => `${task.attempts} / ${task.max_attempts}`, "number brief when"],
      [t("created"), (/** @type {any} */ task) => html`<${Moment} at=${task.created_at} />`, "brief when"],
    ]} />
    <${Dialog} title=${t(`many.${asked}.all`)} open=${asked !== null} onClose=${close}>
      <${Many} deed=${asked} filter=${filter} close=${close} /><//>
  </div><//>`;
}

/** How many there are, of each state and type. @param {{stats: any}} props */
function Counts({ stats }) {
  const rate = stats.throughput.per_minute;
  return html`<section class="stack" aria-label=${t("tasks.counts")}>
    <ul class="figures">${STATUSES.map((status) => html`<li key=${status}>
      <${Link} to="/tasks" query=${{ status }}><b>${counted(stats, stats.counts, status)}</b> ${word("task", status)}<//></li>`)}</ul>
    <${Facts} of=${[
      [t("tasks.oldest"), stats.oldest_ready_seconds !== null && duration(stats.oldest_ready_seconds)],
      [t("tasks.per_minute"), t("tasks.per_minute.what", { completed: rate.completed, failed: rate.failed, retried: rate.retried })],
      [t("tasks.slots"), html`<${Link} to="/types">${t("tasks.slots.what", { busy: stats.workers.busy, slots: stats.workers.slots })}<//>`],
    ]} />
    ${stats.types.length > 0 && html`<details><summary>${t("tasks.by_type")}</summary>
      <${Table} caption=${t("tasks.by_type")} rows=${stats.types} id=${(/** @type {any} */ one) => one.task_type} columns=${[
        [t("task.type"), (/** @type {any} */ one) => html`<${Link} to="/tasks" query=${{ task_type: one.task_type }}>${one.task_type}<//>`],
        ...STATUSES.map((status) => [word("task", status), (/** @type {any} */ one) => (one.counts[status]
          ? html`<${Link} to="/tasks" query=${{ task_type: one.task_type, status }}>${counted(stats, one.counts, status)}<//>` : "–"), "number"]),
      ]} /></details>`}
  </section>`;
}
