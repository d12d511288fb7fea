// What happened to a work item, the latest first.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { read } from "../../lib/api.js";
import { useDeed } from "../../lib/live.js";
import { Badge, Button, Moment, Problem } from "../../lib/ui.js";
import { day, number, t, word } from "../../lib/words.js";

/** How many entries are shown at once. */
const SHOWN = 20;

/**
 * All that happened to an item up to a version, in its order.
 * @param {string | null} target null: nothing of it is told @param {number} version
 */
export function useHistory(target, version) {
  const [rows, setRows] = useState(/** @type {any[]} */ ([]));
  const deed = useDeed();
  const load = () => target && deed.run(async () => {
    const found = [...rows];
    let after = found.length ? found[found.length - 1].version : 0;
    do {
      const page = await read(`${target}/history`, { limit: 100, after });
      found.push(...page.history);
      after = page.next;
    } while (after !== null);
    setRows(found);
  });
  useEffect(() => void load(), [target, version]);
  return { rows, error: deed.error };
}

/** What was said with the step that led to the present state, such as what was done or why it was returned. @param {{rows: any[], item: any}} props */
export function LastSaid({ rows, item }) {
  const last = rows.findLast((row) => row.from_state !== row.to_state);
  return last?.to_state === item.state && (last.reason || last.note) && html`<div class="said"><${Entry} row=${last} /></div>`;
}

/** `names` are those of what the changes refer to, by its id. @param {{history: {rows: any[], error: any}, names: Map<string, string>}} props */
export function History({ history, names }) {
  const [all, setAll] = useState(false);
  const rows = history.rows.toReversed();
  return html`<section aria-labelledby="history"><h2 id="history">${t("item.history")}</h2>
    <${Problem} error=${history.error} />
    <ol class="history" reversed>${(all ? rows : rows.slice(0, SHOWN)).map((row) => html`<li key=${row.version}><${Entry} row=${row} />
      ${Object.entries(row.changes).filter(([name]) => name !== "assignee_id").map(([name, [before, after]]) => html`<div key=${name} class="soft">${word("field", name)}: ${names.get(before) ?? shown(name, before)} → ${names.get(after) ?? shown(name, after)}</div>`)}</li>`)}</ol>
    ${!all && rows.length > SHOWN && html`<${Button} onClick=${() => setAll(true)}>${t("list.more")}<//>`}
  </section>`;
}

/** One step: who took it, when, and what they said. @param {{row: any}} props */
function Entry({ row }) {
  return html`<b>${word("taken", row.step)}</b> · ${row.actor.name} <span class="soft">${[word("member", row.actor.role), row.actor.organisation].filter(Boolean).join(", ")}</span> · <${Moment} at=${row.at} />
    ${row.override && html` <${Badge} kind="unsure">${t("item.override")}<//>`}
    ${row.from_state !== row.to_state && row.to_state && html`<div class="soft">${row.from_state ? `${word("state", row.from_state)} → ` : ""}${word("state", row.to_state)}</div>`}
    ${row.reason && html`<div class="text">${row.reason}</div>`}${row.note && html`<div class="text">${row.note}</div>`}`;
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
