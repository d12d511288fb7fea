// Schedules: what makes tasks, and when next; one is in schedule.js.
import { html, useState } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { go, refine } from "../../lib/router.js";
import { Badge, Button, Choice, Dialog, Field, Link, Moment, Page } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { Rooms, changes } from "../tasks/rooms.js";
import { Edit } from "./edit.js";
import { KINDS, Schedule, rhythm } from "./schedule.js";

/** @param {any} props */
export default function Schedules(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Schedule} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ place, session }) {
  const { status = "", task_type = "" } = place.query;
  const list = useList("/schedules", "schedules", { query: { status, task_type }, seconds: 15 });
  const [making, setMaking] = useState(false);
  return html`<${Page} title=${t("nav.schedules")} live=${list}
    deeds=${changes(session) && html`<${Button} class="main" onClick=${() => setMaking(true)}>${t("schedule.make")}<//>`}><div class="stack">
    <${Rooms} current="schedules" session=${session} />
    <div class="filters">
      <${Choice} label=${t("task.status")} value=${status} onChange=${(/** @type {string} */ chosen) => refine({ status: chosen })}
        options=${[["", t("any")], ...Object.keys(KINDS).map((one) => [one, word("schedule", one)])]} />
      <${Field} label=${t("task.type")} value=${task_type} maxlength="50" onChange=${(/** @type {any} */ event) => refine({ task_type: event.target.value.trim() })} />
    </div>
    <${ListTable} list=${list} caption=${t("nav.schedules")} columns=${[
      [t("schedule.name"), (/** @type {any} */ one) => html`<${Link} to=${`/schedules/${one.id}`}>${one.name}<//>`, "name"],
      [t("task.status"), (/** @type {any} */ one) => html`<${Badge} kind=${KINDS[one.status]}>${word("schedule", one.status)}<//> ${one.problem}`, "brief"],
      [t("schedule.when"), rhythm],
      [t("schedule.next"), (/** @type {any} */ one) => html`<${Moment} at=${one.next_runs[0]} />`, "brief when"],
      [t("schedule.last"), (/** @type {any} */ one) => html`<${Moment} at=${one.last_run_at} />`, "brief when"],
      [t("task.type"), (/** @type {any} */ one) => one.task_type],
    ]} />
    <${Dialog} title=${t("schedule.make")} open=${making} onClose=${() => setMaking(false)}>
      <${Edit} done=${(/** @type {any} */ made) => go(`/schedules/${made.data.id}`)} /><//>
  </div><//>`;
}
