// One schedule: what it makes, when it runs next, and what may be done about it.
import { html, useState } from "../../vendor/preact.js";
import { ask, path, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Problem } from "../../lib/ui.js";
import { duration, number, t, time, word } from "../../lib/words.js";
import { changes } from "../tasks/rooms.js";
import { Edit } from "./edit.js";

/** @type {Record<string, string>} */
export const KINDS = { active: "good", paused: "unsure", finished: "" };

/** When it runs, as it was written. @param {any} schedule */
export function rhythm({ cron, timezone, every, at }) {
  if (cron) return html`<code>${cron}</code> ${timezone}`;
  return every ? t("schedule.every.now", { time: duration(every) }) : t("schedule.at.now", { time: time(at) });
}

/** @param {{id: string, session: any}} props */
export function Schedule({ id, session }) {
  const target = path`/schedules/${id}`;
  const live = useLive(target, { seconds: 15 });
  const [asked, setAsked] = useState(/** @type {"run" | "pause" | "resume" | "edit" | "delete" | null} */ (null));
  const [edited, setEdited] = useState(/** @type {any} */ (null));
  const opening = useDeed();
  const schedule = live.data;
  // As it is now, whole, and with its version.
  const edit = () => opening.run(async () => {
    setEdited(await ask(target));
    setAsked("edit");
  });
  const deeds = schedule && changes(session) && html`
    <${Button} class="main" onClick=${() => setAsked("run")}>${t("schedule.run")}<//>
    ${schedule.status === "active" && html`<${Button} onClick=${() => setAsked("pause")}>${t("schedule.pause")}<//>`}
    ${schedule.status === "paused" && html`<${Button} onClick=${() => setAsked("resume")}>${t("schedule.resume")}<//>`}
    <${Button} busy=${opening.busy} onClick=${edit}>${t("schedule.edit")}<//>
    <${Button} onClick=${() => setAsked("delete")}>${t("schedule.delete")}<//>`;
  const done = (/** @type {any} */ made) => {
    setAsked(null);
    if (asked === "delete") go("/schedules");
    else if (asked === "run") go(`/tasks/${made.id}`);
    else live.again();
  };
  const request = asked === "delete" ? ["DELETE", target] : ["POST", `${target}/${asked}`];
  return html`<${Page} title=${schedule?.name ?? t("nav.schedules")} deeds=${deeds} live=${live}>
    ${schedule && html`<div class="stack">
      <p><${Badge} kind=${KINDS[schedule.status]}>${word("schedule", schedule.status)}<//> ${rhythm(schedule)}</p>
      <${Problem} error=${schedule.problem && { message: schedule.problem }} />
      <${Problem} error=${opening.error} />
      <section><h2>${t("schedule.runs")}</h2>
        ${schedule.next_runs.length === 0 ? html`<p class="soft">${t("schedule.runs.none")}</p>` : html`<ol>${schedule.next_runs.map((/** @type {string} */ at) => html`<li key=${at}>
          <time datetime=${at}>${time(at)}</time> <span class="soft">(<${Moment} at=${at} />)</span></li>`)}</ol>`}</section>
      <${Facts} of=${[
        ["id", html`<code>${schedule.id}</code>`],
        [t("task.type"), html`<${Link} to="/tasks" query=${{ task_type: schedule.task_type }}>${schedule.task_type}<//>`],
        [t("task.title"), schedule.title],
        [t("task.owner"), schedule.user_id && html`<${Link} to=${`/users/${schedule.user_id}`}><code>${schedule.user_id}</code><//>`],
        [t("schedule.last"), schedule.last_run_at && html`<${Moment} at=${schedule.last_run_at} /> ${schedule.last_task_id && html`<${Link} to=${`/tasks/${schedule.last_task_id}`}>${t("schedule.last.task")}<//>`}`],
        [t("schedule.missed"), t(`schedule.missed.${schedule.missed}`)],
        [t("schedule.starts_at"), time(schedule.starts_at)],
        [t("schedule.ends_at"), time(schedule.ends_at)],
        [t("task.priority"), number(schedule.priority)],
        [t("task.attempts"), number(schedule.max_attempts)],
        [t("schedule.timeout"), schedule.timeout !== null && duration(schedule.timeout)],
        [t("task.callback"), schedule.callback_url],
      ]} />
      <details><summary>${t("task.payload")}</summary><pre tabindex="0">${JSON.stringify(schedule.payload, null, 2)}</pre></details>
      <${Dialog} title=${t(`schedule.${asked}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        ${asked === "edit" ? html`<${Edit} schedule=${edited.data} etag=${edited.etag} done=${done} />` : html`<p>${t(`schedule.${asked}.what`)}</p>
          <${Form} danger=${asked === "delete"} label=${t(`schedule.${asked}`)} done=${done} does=${() => send(request[0], request[1])} request=${() => request} />`}
      <//>
    </div>`}
  <//>`;
}
