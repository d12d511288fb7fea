// What happened to a work item.
import { html, useState } from "../../vendor/preact.js";
import { read } from "../../lib/api.js";
import { useDeed } from "../../lib/live.js";
import { Badge, Button, Moment, Problem } from "../../lib/ui.js";
import { day, number, t, word } from "../../lib/words.js";

/** @param {{target: string, version: number}} props */
export function History({ target, version }) {
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
      <b>${word("step", row.step)}</b> · ${row.actor.name} <span class="soft">${[word("member", row.actor.role), row.actor.organisation].filter(Boolean).join(", ")}</span> · <${Moment} at=${row.at} />
      ${row.override && html` <${Badge} kind="unsure">${t("item.override")}<//>`}
      ${row.from_state !== row.to_state && row.to_state && html`<div>${row.from_state ? `${word("state", row.from_state)} → ` : ""}${word("state", row.to_state)}</div>`}
      ${Object.entries(row.changes).filter(([name]) => name !== "assignee_id").map(([name, [before, after]]) => html`<div key=${name} class="soft">${word("field", name)}: ${shown(name, before)} → ${shown(name, after)}</div>`)}
      ${row.reason && html`<div class="text">${row.reason}</div>`}${row.note && html`<div class="text">${row.note}</div>`}</li>`)}</ol>`}
    ${seen?.next && html`<${Button} busy=${deed.busy} onClick=${load}>${t("list.more")}<//>`}
  </section>`;
}

/** A value of a field. @param {string} name @param {any} value */
function shown(name, value) {
  if (value === null || value === "" || (Array.isArray(value) && value.length === 0)) return "–";
  if (name === "due_on" || name === "original_due_on") return day(value);
  if (typeof value === "boolean") return t(value ? "yes" : "no");
  if (typeof value === "number") return number(value);
  if (Array.isArray(value)) return value.join(", ");
  return ["severity", "resolution"].includes(name) ? word(name, value) : String(value);
}
