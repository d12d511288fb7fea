// What the pages about tasks have in common: the way from one to the other, and what each kind of answer looks like.
import { html } from "../../vendor/preact.js";
import { readOnly } from "../../lib/api.js";
import { Tabs } from "../../lib/ui.js";
import { number, t } from "../../lib/words.js";

/** @type {Record<string, string>} */
export const KINDS = { processing: "unsure", completed: "good", failed: "bad" };
export const STATUSES = ["pending", "processing", "completed", "failed", "cancelled"];

/** Whether somebody may change tasks and schedules that they see. @param {any} session */
export const changes = (session) => !readOnly && (session.operates || !session.inspects);

/** @param {{current: string, session: any}} props */
export function Rooms({ current, session }) {
  const rooms = ["tasks", "types", "schedules", ...(session.inspects ? ["messages"] : [])];
  return html`<${Tabs} label=${t("nav.tasks")} of=${rooms.map((one) => ({ to: `/${one}`, words: t(`nav.${one}`), isHere: one === current }))} />`;
}

/** A count as the statistics have it. @param {any} stats @param {any} counts @param {string} status */
export function counted(stats, counts, status) {
  return `${stats.estimated.includes(status) && counts[status] ? "≈ " : ""}${number(counts[status])}`;
}

/** The names of the types, for a field that takes one. @param {{id: string, types: any}} props */
export function TypeNames({ id, types }) {
  return html`<datalist id=${id}>${types?.task_types.map((/** @type {any} */ one) => html`<option value=${one.name}></option>`)}</datalist>`;
}
