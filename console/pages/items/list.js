// A list of work items, and what can be done to several of them at once.
import { html, useEffect, useRef, useState } from "../../vendor/preact.js";
import { read } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { useDeed } from "../../lib/live.js";
import { Badge, Button, Dialog, Link, Moment, Problem } from "../../lib/ui.js";
import { day, t, word } from "../../lib/words.js";
import { Bulk, MOST } from "./bulk.js";
import { usePaths } from "./choices.js";
import { stepsOf } from "./roles.js";

/** @type {Record<string, string>} */
export const KINDS = { closed: "good", done: "good", returned: "bad", disputed: "bad", ready: "unsure", in_progress: "unsure" };

/** @param {{item: any}} props */
export function State({ item }) {
  return html`<${Badge} kind=${KINDS[item.state]}>${word("state", item.state)}<//>
    ${item.overdue && html` <${Badge} kind="bad">${t("item.overdue")}<//>`}`;
}

/** @type {[string, (item: any) => any, string]} */
const assigned = [t("item.assignee"), (item) => [item.assignee?.name, item.organisation].filter(Boolean).join(", "), "brief"];

/** What a customer sees of an item has no key, and nobody who does it. @param {{query: Record<string, unknown>, session: any, seconds?: number, changed?: () => void}} props */
export function ItemList({ query, session, seconds = 15, changed }) {
  const list = useList("/work-items", "work_items", { query, seconds });
  const key = JSON.stringify(query);
  const [chosen, setChosen] = useState(/** @type {Map<string, any>} */ (new Map()));
  const [step, setStep] = useState(/** @type {string | null} */ (null));
  useEffect(() => setChosen(new Map()), [key]);
  const paths = usePaths([...new Set(list.rows.map((/** @type {any} */ row) => row.site_id))].sort());
  const rows = new Map(list.rows.map((/** @type {any} */ row) => [row.id, row]));
  // Those beyond the shown ones are as they were when they were chosen.
  const items = [...chosen].map(([id, row]) => rows.get(id) ?? row);
  const choosable = list.rows.filter((/** @type {any} */ row) => stepsOf(row).length > 0);
  const toggle = (/** @type {any[]} */ some, /** @type {boolean} */ on) => {
    const next = new Map(chosen);
    for (const row of some) on ? next.set(row.id, row) : next.delete(row.id);
    setChosen(next);
  };
  const taken = (/** @type {Set<string>} */ refused) => {
    setChosen(new Map([...chosen].filter(([id]) => refused.has(id))));
    list.again();
    changed?.();
  };
  // Whoever comes back from an item finds the list where they left it.
  const left = useRef(history.state?.item);
  useEffect(() => {
    const at = left.current;
    if (!at || list.rows.length === 0) return;
    if (list.rows.length <= at.place && list.hasMore) return void list.load();
    left.current = null;
    const link = document.getElementById(`item-${rows.has(at.id) ? at.id : list.rows[Math.min(at.place, list.rows.length - 1)].id}`);
    link?.scrollIntoView({ block: "center" });
    link?.focus({ preventScroll: true });
  }, [list.rows.length]);
  const leave = (/** @type {any} */ item) => history.replaceState({ item: { id: item.id, place: list.rows.findIndex((/** @type {any} */ row) => row.id === item.id) } }, "");
  const bar = (chosen.size > 0 || step !== null) && html`<${Chosen} items=${items} list=${list} query=${query} onStep=${setStep} onAll=${setChosen} />`;
  return html`<${Problem} error=${list.error} />
    ${list.data === null && !list.error && html`<p class="soft" aria-busy="true">${t("loading")}</p>`}
    ${choosable.length > 1 && html`<label class="check"><input type="checkbox" checked=${choosable.every((/** @type {any} */ row) => chosen.has(row.id))}
      onChange=${(/** @type {any} */ event) => toggle(choosable, event.target.checked)} /> ${t("bulk.shown")}</label>`}
    ${list.data !== null && html`<${ListTable} list=${list} caption=${t("nav.items")} below=${bar} columns=${[
      [t("item"), (/** @type {any} */ item) => html`<span class="pick">${stepsOf(item).length > 0 && html`<input type="checkbox" checked=${chosen.has(item.id)}
        aria-label=${t("bulk.choose", { title: `${item.key} ${item.title}` })} onChange=${(/** @type {any} */ event) => toggle([item], event.target.checked)} />`}
        <span><${Link} to=${`/items/${item.id}`} id=${`item-${item.id}`} onClick=${() => leave(item)}>${item.key ? `${item.key} ` : ""}${item.title}<//></span></span>`, "name"],
      [t("item.state"), (/** @type {any} */ item) => html`<${State} item=${item} /> ${item.severity === "critical" && html`<${Badge}>${word("severity", "critical")}<//>`}`, "brief state"],
      [t("item.due"), (/** @type {any} */ item) => day(item.due_on), "brief when"],
      [t("item.location"), (/** @type {any} */ item) => [paths.get(item.location_id) ?? item.location, item.place].filter(Boolean).join(", "), "brief"],
      ...(list.rows.some((/** @type {any} */ row) => row.key) ? [assigned] : []),
      [t("created"), (/** @type {any} */ item) => html`<${Moment} at=${item.created_at} />`, "brief when"],
    ]} />`}
    <${Dialog} title=${step === null ? "" : word("step", step)} open=${step !== null} onClose=${() => setStep(null)}>
      ${step !== null && html`<${Bulk} step=${step} items=${items} session=${session} taken=${taken} close=${() => setStep(null)} />`}
    <//>`;
}

/** @param {{items: any[], list: any, query: Record<string, unknown>, onStep: (step: string) => void, onAll: (chosen: Map<string, any>) => void}} props */
function Chosen({ items, list, query, onStep, onAll }) {
  const deed = useDeed();
  const [isAll, setAll] = useState(false);
  /** @type {Map<string, number>} */
  const steps = new Map();
  for (const item of items) for (const step of item.permitted_steps) steps.set(step, (steps.get(step) ?? 0) + 1);
  const all = () => deed.run(async () => {
    const found = new Map();
    let after;
    do {
      const page = await read("/work-items", { ...query, limit: 100, total: false, after });
      for (const row of page.work_items) if (stepsOf(row).length > 0 && found.size < MOST) found.set(row.id, row);
      after = page.next;
    } while (after !== null && found.size < MOST);
    onAll(found);
    setAll(true);
  });
  return html`<div class="deeds" role="group" aria-label=${t("bulk.chosen", { count: items.length })}>
    <b role="status">${t("bulk.chosen", { count: items.length })}</b>
    ${[...steps].map(([step, count]) => html`<${Button} key=${step} onClick=${() => onStep(step)}>${word("step", step)} (${count})<//>`)}
    ${list.hasMore && !isAll && html`<${Button} busy=${deed.busy} onClick=${all}>${t("bulk.all", { total: list.total, most: MOST })}<//>`}
    <${Button} class="plain" onClick=${() => onAll(new Map())}>${t("bulk.none")}<//>
    <${Problem} error=${deed.error} /></div>`;
}
