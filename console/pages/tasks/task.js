// One task: how it stands, why it waits, what it was given and gave, and every failed attempt.
import { html, useState } from "../../vendor/preact.js";
import { path, read, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Problem } from "../../lib/ui.js";
import { duration, number, t, time, word } from "../../lib/words.js";
import { useTask } from "./follow.js";
import { KINDS, changes } from "./rooms.js";
import { why } from "./waiting.js";

/** @param {{id: string, session: any}} props */
export function Task({ id, session }) {
  const target = path`/tasks/${id}`;
  const live = useTask(id);
  const [asked, setAsked] = useState(/** @type {"retry" | "cancel" | "purge" | null} */ (null));
  const task = live.data;
  const waits = task?.status === "pending";
  const { data: stats } = useLive(waits ? "/tasks/stats" : null, { seconds: 3 });
  const { data: types } = useLive(waits ? "/task-types" : null, { query: { limit: 100 }, seconds: 15 });
  const runs = task && ["pending", "processing"].includes(task.status);
  const failed = task && ["failed", "cancelled"].includes(task.status);
  const deeds = task && changes(session) && html`
    ${runs && html`<${Button} onClick=${() => setAsked("cancel")}>${t("task.cancel")}<//>`}
    ${failed && html`<${Button} onClick=${() => setAsked("retry")}>${t("task.retry")}<//>`}
    ${!runs && html`<${Button} onClick=${() => setAsked("purge")}>${t("task.purge")}<//>`}`;
  const done = () => {
    setAsked(null);
    if (asked === "purge") go("/tasks");
    else live.again();
  };
  const request = { cancel: ["DELETE", target], retry: ["POST", `${target}/retry`], purge: ["DELETE", `${target}?purge=true`] }[asked ?? "cancel"];
  return html`<${Page} title=${task?.title ?? task?.task_type ?? t("nav.tasks")} deeds=${deeds} live=${live}>
    ${task && html`<div class="stack">
      <p role="status"><${Badge} kind=${KINDS[task.status]}>${word("task", task.status)}<//> ${why(task, types, stats, session)}</p>
      ${task.status === "processing" && html`<p><progress max="100" value=${task.progress.percent} aria-label=${t("task.progress")}></progress> ${number(task.progress.percent)} % ${task.progress.message}</p>`}
      <${Problem} error=${task.error && { message: task.error }} />
      <${Facts} of=${[
        ["id", html`<code>${task.id}</code>`],
        [t("task.type"), html`<${Link} to="/tasks" query=${{ task_type: task.task_type }}>${task.task_type}<//>`],
        [t("task.owner"), task.user_id && html`<${Link} to=${`/users/${task.user_id}`}><code>${task.user_id}</code><//>`],
        [t("task.attempts"), `${number(task.attempts)} / ${number(task.max_attempts)}`],
        [t("task.priority"), number(task.priority)],
        [t("created"), html`<${Moment} at=${task.created_at} />`],
        [t("task.due"), html`<${Moment} at=${task.execute_at} />`],
        [t("task.started"), task.started_at && html`<${Moment} at=${task.started_at} />`],
        [t("task.ended"), task.completed_at && html`<${Moment} at=${task.completed_at} />`],
        [t("task.duration"), task.duration !== null && duration(task.duration)],
        [t("task.unique_key"), task.unique_key],
        [t("task.callback"), task.callback_url && html`${task.callback_url} ${task.callback_task_id && html`<${Link} to=${`/tasks/${task.callback_task_id}`}>${t("task.callback.task")}<//>`}`],
      ]} />
      <${Attempts} errors=${task.errors} load=${async () => (await read(target, { trace: true, light: true })).errors} />
      <${OnDemand} title=${t("task.payload")} load=${async () => (await read(target)).payload} />
      ${task.status === "completed" && html`<${OnDemand} title=${t("task.result")} load=${async () => (await read(`${target}/result`)).result} />`}
      <${Dialog} title=${t(`task.${asked}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        <p>${t(`task.${asked}.what`)}</p>
        <${Form} danger=${asked !== "retry"} does=${() => send(request[0], request[1])} done=${done} label=${t(`task.${asked}`)} request=${() => request} />
      <//>
    </div>`}
  <//>`;
}

/** @param {{errors: any[], load: () => Promise<any[]>}} props */
function Attempts({ errors, load }) {
  const [traced, setTraced] = useState(/** @type {any[]} */ ([]));
  const deed = useDeed();
  if (errors.length === 0) return null;
  const traces = Object.fromEntries(traced.map((one) => [one.failed_at, one.trace ?? t("task.trace.none")]));
  return html`<section><header class="title"><h2>${t("task.errors")}</h2>
    ${traced.length === 0 && html`<${Button} busy=${deed.busy} onClick=${() => deed.run(async () => setTraced(await load()))}>${t("task.trace")}<//>`}</header>
    <${Problem} error=${deed.error} />
    ${errors.map((one) => html`<details key=${one.failed_at} open=${one === errors.at(-1)}>
      <summary>${t("task.attempt", { number: one.attempt })} · <time datetime=${one.failed_at}>${time(one.failed_at)}</time> · ${one.worker}</summary>
      <pre tabindex="0">${one.type}: ${one.message}${traces[one.failed_at] && `\n\n${traces[one.failed_at]}`}</pre></details>`)}
  </section>`;
}

/** Something that may be large, fetched when it is wanted. @param {{title: string, load: () => Promise<any>}} props */
function OnDemand({ title, load }) {
  const [text, setText] = useState(/** @type {string | null} */ (null));
  const deed = useDeed();
  const show = () => deed.run(async () => setText(JSON.stringify(await load(), null, 2)));
  return html`<section><header class="title"><h2>${title}</h2>
    ${text === null && html`<${Button} busy=${deed.busy} onClick=${show}>${t("show")}<//>`}</header>
    <${Problem} error=${deed.error} />${text !== null && html`<pre tabindex="0">${text}</pre>`}</section>`;
}
