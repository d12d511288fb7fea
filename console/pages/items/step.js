// One step of a work item, with the fields that it takes.
import { html, useMemo, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Choice, Field, Form } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";

/** The fields of each step; the API says what is missing. @type {Record<string, string[]>} */
const FIELDS = {
  assign: ["assignee_id", "due_on"],
  move_deadline: ["due_on", "reason"],
  report_done: ["note"],
  dispute: ["reason"],
  settle: ["outcome", "resolution"],
  return: ["reason"],
  accept_as_is: ["reason"],
  reopen: ["reason", "due_on"],
  void: ["resolution", "reason"],
};
/** @type {Record<string, string[]>} */
const WORDS = { outcome: ["open", "void"], resolution: ["", "no_defect", "mistake", "duplicate"] };

/** @param {{item: any, step: string, session: any, done: () => void}} props */
export function StepForm({ item, step, done }) {
  const [said, setSaid] = useState(/** @type {Record<string, string>} */ ({ outcome: "open", ...(step === "void" && { resolution: "mistake" }) }));
  // Sent again, it is taken once.
  const key = useMemo(() => crypto.randomUUID(), [item.id, step]);
  const names = FIELDS[step] ?? [];
  const target = path`/work-items/${item.id}/steps`;
  const body = () => ({ step, op_id: key, ...Object.fromEntries(Object.entries(said).filter(([name, value]) => value && [...names, "reason"].includes(name))) });
  const headers = { "If-Match": `"${item.version}"` };
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => setSaid({ ...said, [name]: event?.target ? event.target.value : event });
  return html`<${Form} label=${word("step", step)} done=${done} does=${() => send("POST", target, body(), headers)} request=${() => ["POST", target, body(), headers]}>
    ${(/** @type {any} */ error) => [...new Set([...names, ...(error?.of?.("reason") ? ["reason"] : [])])].map((name) => {
      const props = { label: t(`step.field.${name}`), error: error?.of?.(name), key: name };
      if (name === "assignee_id") return html`<${People} ...${props} site=${item.site_id} value=${said.assignee_id ?? ""} onChange=${set(name)} />`;
      if (name in WORDS) return html`<${Choice} ...${props} value=${said[name] ?? ""} onChange=${set(name)} options=${WORDS[name].map((one) => [one, one ? word(name === "outcome" ? "state" : "resolution", one) : "–"])} />`;
      if (name === "due_on") return html`<${Field} ...${props} type="date" value=${said.due_on ?? ""} onInput=${set(name)} />`;
      return html`<${Field} ...${props}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} maxlength="2000" value=${said[name] ?? ""} onInput=${set(name)}></textarea>`}<//>`;
    })}
  <//>`;
}

/** @param {any} props */
function People({ site, ...props }) {
  const members = useLive(path`/sites/${site}/members`, { query: { limit: 100 } });
  const people = (members.data?.members ?? []).filter((/** @type {any} */ one) => ["engineer", "manager", "contractor"].includes(one.role));
  return html`<${Choice} ...${props} options=${[["", "–"], ...people.map((/** @type {any} */ one) => [one.user_id, [one.name, one.organisation].filter(Boolean).join(", ")])]} />`;
}
