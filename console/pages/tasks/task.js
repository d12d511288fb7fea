// One task: how it stands, why it waits, what it was given and gave, and every failed attempt.
import { html, useState } from "../../vendor/preact.js";
import { path, read, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Form, Moment, Page, Problem } from "../../lib/ui.js";
import { duration, t, word } from "../../lib/words.js";
import { KINDS } from "./page.js";

/** @param {{id: string, session: any}} props */
export function Task({ id }) {
  const target = path`/tasks/${id}`;
  const live = useLive(target, { seconds: 2 });
  const [asked, setAsked] = useState(/** @type {"retry" | "cancel" | null} */ (null));
  const task = live.data;
  const runs = task && ["pending", "processing"].includes(task.status);
  const failed = task && ["failed", "cancelled"].includes(task.status);
  const deeds = [
    runs && html`<${Button} onClick=${() => setAsked("cancel")}>${t("task.cancel")}<//>`,
    failed && html`<${Button} onClick=${() => setAsked("retry")}>${t("task.retry")}<//>`,
  ];
  const done = () => {
    setAsked(null);
    live.again();
  };
  return html`<${Page} title=${task?.title ?? task?.task_type ?? t("nav.tasks")} deeds=${deeds} live=${live}>
    ${task && html`<div class="stack">
      <p><${Badge} kind=${KINDS[task.status]}>${word("task", task.status)}<//> ${task.waiting_for ?? ""}</p>
      ${task.status === "processing" && html`<progress max="100" value=${task.progress.percent ?? 0} aria-label=${t("task.progress")}></progress> ${task.progress.message}`}
      <${Problem} error=${task.error && { message: task.error }} />
      <${Facts} of=${[
        ["id", html`<code>${task.id}</code>`],
        [t("task.type"), task.task_type],
        [t("task.attempts"), `${task.attempts} / ${task.max_attempts}`],
        [t("task.priority"), task.priority],
        [t("created"), html`<${Moment} at=${task.created_at} />`],
        [t("task.due"), html`<${Moment} at=${task.execute_at} />`],
        [t("task.ended"), task.completed_at && html`<${Moment} at=${task.completed_at} />`],
        [t("task.duration"), task.duration !== null && duration(task.duration)],
      ]} />
      <${Attempts} errors=${task.errors} />
      <${OnDemand} title=${t("task.payload")} load=${async () => (await read(target)).payload} />
      ${task.status === "completed" && html`<${OnDemand} title=${t("task.result")} load=${async () => (await read(path`/tasks/${id}/result`)).result} />`}
      <${Dialog} title=${t(`task.${asked}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        <p>${t(`task.${asked}.what`)}</p>
        ${asked === "cancel"
          ? html`<${Form} danger does=${() => send("DELETE", target)} done=${done} label=${t("task.cancel")} request=${() => ["DELETE", target]} />`
          : html`<${Form} does=${() => send("POST", `${target}/retry`)} done=${done} label=${t("task.retry")} request=${() => ["POST", `${target}/retry`]} />`}
      <//>
    </div>`}
  <//>`;
}

/** @param {{errors: any[]}} props */
function Attempts({ errors }) {
  if (errors.length === 0) return null;
  return html`<section><h2>${t("task.errors")}</h2>
    ${errors.map((one) => html`<details key=${one.attempt}><summary>${t("task.attempt", { number: one.attempt })} · <${Moment} at=${one.at} /></summary><pre>${one.error}</pre></details>`)}
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
