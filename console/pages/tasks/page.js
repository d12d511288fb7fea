// Tasks: what waits, runs and has ended; one task is in task.js.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { refine } from "../../lib/router.js";
import { Badge, Choice, Field, Link, Moment, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { Task } from "./task.js";

const STATUSES = ["pending", "processing", "completed", "failed", "cancelled"];
/** @type {Record<string, string>} */
export const KINDS = { processing: "unsure", completed: "good", failed: "bad" };

/** @param {any} props */
export default function Tasks(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Task} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place }) {
  const { status = "", task_type = "", user_id = "" } = place.query;
  const list = useList("/tasks", "tasks", { query: { status, task_type, user_id }, seconds: 3 });
  return html`<${Page} title=${t("nav.tasks")} live=${list}>
    <div class="filters">
      <${Choice} label=${t("task.status")} value=${status} onChange=${(/** @type {string} */ chosen) => refine({ status: chosen })}
        options=${[["", t("any")], ...STATUSES.map((one) => [one, word("task", one)])]} />
      <${Field} label=${t("task.type")} value=${task_type} onChange=${(/** @type {any} */ event) => refine({ task_type: event.target.value })} />
    </div>
    <${ListTable} list=${list} caption=${t("nav.tasks")} columns=${[
      [t("task.type"), (/** @type {any} */ task) => html`<${Link} to=${`/tasks/${task.id}`}>${task.title ?? task.task_type}<//>${task.title && html` <span class="soft">${task.task_type}</span>`}`],
      [t("task.status"), (/** @type {any} */ task) => html`<${Badge} kind=${KINDS[task.status]}>${word("task", task.status)}<//>`],
      [t("task.progress"), (/** @type {any} */ task) => (task.status === "processing" ? `${task.progress.percent ?? 0} % ${task.progress.message ?? ""}` : task.waiting_for ?? "")],
      [t("task.attempts"), (/** @type {any} */ task) => `${task.attempts} / ${task.max_attempts}`, "number"],
      [t("created"), (/** @type {any} */ task) => html`<${Moment} at=${task.created_at} />`],
    ]} />
  <//>`;
}
