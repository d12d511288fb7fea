// One work item: what it is, the steps that its reader may take now, what was said, and what happened.
import { html, useState } from "../../vendor/preact.js";
import { path, read, send } from "../../lib/api.js";
import { useDeed, useLive } from "../../lib/live.js";
import { Badge, Button, Choice, Dialog, Facts, Field, Form, Link, Moment, Page, Problem } from "../../lib/ui.js";
import { day, t, word } from "../../lib/words.js";
import { State } from "./list.js";
import { StepForm } from "./step.js";

/** @param {{id: string, session: any}} props */
export function Item({ id, session }) {
  const target = path`/work-items/${id}`;
  const live = useLive(target, { seconds: 10 });
  const [step, setStep] = useState(/** @type {string | null} */ (null));
  const item = live.data;
  const steps = item?.permitted_steps ?? [];
  const done = () => {
    setStep(null);
    live.again();
  };
  return html`<${Page} title=${item ? `${item.key ?? ""} ${item.title}`.trim() : t("item")} live=${live}>
    ${item && html`<div class="stack">
      <p><${State} item=${item} /> ${item.severity && html`<${Badge}>${word("severity", item.severity)}<//>`} ${item.resolution && word("resolution", item.resolution)}</p>
      ${steps.length > 0 && html`<div class="deeds" role="group" aria-label=${t("item.steps")}>${steps.map((/** @type {string} */ one) => html`
        <${Button} key=${one} onClick=${() => setStep(one)}>${word("step", one)}<//>`)}</div>`}
      ${item.description && html`<p class="text">${item.description}</p>`}
      <${Facts} of=${[
        [t("site"), html`<${Link} to=${`/sites/${item.site_id}`}>${t("site.show")}<//>`],
        [t("item.due"), item.due_on && `${day(item.due_on)}${item.original_due_on && item.original_due_on !== item.due_on ? ` (${t("item.due.first", { day: day(item.original_due_on) })})` : ""}`],
        [t("item.assignee"), item.assignee?.name],
        [t("item.organisation"), item.organisation],
        [t("item.priority"), item.priority],
        [t("item.location"), [item.location, item.place, item.axes].filter(Boolean).join(", ")],
        [t("item.type"), [item.type, item.subtype].filter(Boolean).join(", ")],
        [t("item.requirements"), item.requirement_refs?.join("; ")],
        [t("item.author"), item.author?.name],
        [t("created"), html`<${Moment} at=${item.created_at} />`],
        [t("item.closed"), item.closed_at && html`<${Moment} at=${item.closed_at} />`],
      ]} />
      <${Comments} target=${target} session=${session} />
      ${item.key && html`<${History} target=${target} version=${item.version} />`}
      <${Dialog} title=${step === null ? "" : word("step", step)} open=${step !== null} onClose=${() => setStep(null)}>
        ${step !== null && html`<${StepForm} item=${item} step=${step} session=${session} done=${done} />`}
      <//>
    </div>`}
  <//>`;
}

/** @param {{target: string, session: any}} props */
function Comments({ target, session }) {
  const live = useLive(`${target}/comments`, { query: { limit: 100 }, seconds: 10 });
  const [text, setText] = useState("");
  const [audience, setAudience] = useState("");
  const [key, setKey] = useState(() => crypto.randomUUID());
  const body = () => ({ text, op_id: key, ...(audience && { audience }) });
  const done = () => {
    setText("");
    setKey(crypto.randomUUID());
    live.again();
  };
  return html`<section aria-labelledby="comments"><h2 id="comments">${t("item.comments")}</h2>
    <${Problem} error=${live.error} />
    ${live.data?.comments.map((/** @type {any} */ one) => html`<article class="card comment" key=${one.id}>
      <p class="soft"><b>${one.author.name}</b> ${word("member", one.author_role)} · <${Badge}>${word("audience", one.audience)}<//> · <${Moment} at=${one.created_at} /></p>
      <p class="text">${one.text}</p></article>`)}
    ${(session.me.id !== null || session.operates) && html`<${Form} label=${t("item.comment")} done=${done} does=${() => send("POST", `${target}/comments`, body())}
      request=${() => ["POST", `${target}/comments`, body()]}>
      <${Field} label=${t("item.comment.text")}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} required maxlength="10000" value=${text} onInput=${(/** @type {any} */ event) => setText(event.target.value)}></textarea>`}<//>
      <${Choice} label=${t("item.comment.for")} value=${audience} onChange=${setAudience} options=${[["", t("item.comment.usual")], ...["internal", "parties", "customer"].map((one) => [one, word("audience", one)])]} />
    <//>`}
  </section>`;
}

/** @param {{target: string, version: number}} props */
function History({ target, version }) {
  const [seen, setSeen] = useState(/** @type {{version: number, rows: any[], next: number | null} | null} */ (null));
  const deed = useDeed();
  const load = () => deed.run(async () => {
    const rows = seen?.version === version ? seen.rows : [];
    const page = await read(`${target}/history`, { limit: 100, after: rows.length ? rows[rows.length - 1].seq : 0 });
    setSeen({ version, rows: [...rows, ...page.history], next: page.next });
  });
  return html`<section aria-labelledby="history"><header class="title"><h2 id="history">${t("item.history")}</h2>
    ${(seen === null || seen.version !== version) && html`<${Button} busy=${deed.busy} onClick=${load}>${t("show")}<//>`}</header>
    <${Problem} error=${deed.error} />
    ${seen && html`<ol class="history">${seen.rows.map((row) => html`<li key=${row.seq}>
      <b>${word("step", row.step)}</b> · ${row.actor.name} <span class="soft">${word("member", row.actor.role)}</span> · <${Moment} at=${row.at} />
      ${row.from_state !== row.to_state && row.to_state && html`<div>${row.from_state ? `${word("state", row.from_state)} → ` : ""}${word("state", row.to_state)}</div>`}
      ${Object.entries(row.changes).map(([name, [before, after]]) => html`<div key=${name} class="soft">${word("field", name)}: ${shown(before)} → ${shown(after)}</div>`)}
      ${row.reason && html`<div class="text">${row.reason}</div>`}${row.note && html`<div class="text">${row.note}</div>`}</li>`)}</ol>`}
    ${seen?.next && html`<${Button} busy=${deed.busy} onClick=${load}>${t("list.more")}<//>`}
  </section>`;
}

/** @param {unknown} value */
function shown(value) {
  return value === null || value === "" ? "–" : typeof value === "object" ? JSON.stringify(value) : String(value);
}
