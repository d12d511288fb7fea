// The fields of a work item, to be changed by whoever may; only what was changed here is sent.
import { html, useMemo } from "../../vendor/preact.js";
import { path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Button, Choice, Field, Form } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { LocationChoice, usePeople, useSeen } from "./choices.js";
import { inspects, leads, takesPart } from "./roles.js";
import { useSaid } from "./step.js";

/** How each field is asked for. @type {Record<string, string>} */
const KINDS = { description: "long", severity: "choice", priority: "choice", location_id: "choice", assignee_id: "choice", due_on: "date", requirement_refs: "lines", tags: "lines", visible_to_customer: "check" };
const EVERY = ["title", "description", "severity", "location_id", "place", "axes", "type", "subtype", "root_cause", "subject", "requirement_refs", "tags"];
const OF_REMARKS = ["title", "description", "location_id", "place"];
const OF_DRAFTS = ["assignee_id", "organisation", "due_on"];
const AFTER_THE_END = ["tags", "visible_to_customer"];

/** @param {any} item @param {any} session */
export function isOwnDraft(item, session) {
  return item.editable || (item.state === "draft" && session.me.id !== null && item.author?.id === session.me.id);
}

/** Which fields somebody may change. @param {any} item @param {any} site @param {any} session @returns {string[]} */
function editable(item, site, session) {
  if (item.editable) return takesPart(site, session) ? OF_REMARKS : [];
  if (item.version === undefined || !inspects(site, session)) return [];
  const draft = isOwnDraft(item, session);
  const names = [...EVERY, ...(leads(site, session) || draft ? ["priority", "visible_to_customer"] : []), ...(draft ? OF_DRAFTS : [])];
  return ["closed", "void"].includes(item.state) ? names.filter((name) => AFTER_THE_END.includes(name)) : names;
}

/** @param {any} item @param {any} site @param {any} session */
export function mayEdit(item, site, session) {
  return editable(item, site, session).length > 0;
}

/** A field's value as its control has it. @param {any} item @param {string} name */
function shown(item, name) {
  if (name === "assignee_id") return item.assignee?.id ?? "";
  const value = item[name];
  return KINDS[name] === "lines" ? value.join("\n") : KINDS[name] === "check" ? value : value === null ? "" : String(value);
}

/** What a control says, as the API takes it. @param {string} name @param {any} value */
function taken(name, value) {
  if (KINDS[name] === "lines") return value.split("\n").map((/** @type {string} */ line) => line.trim()).filter(Boolean);
  if (KINDS[name] === "choice" || KINDS[name] === "date") return value === "" ? null : name === "priority" ? Number(value) : value;
  return value;
}

/** @param {{item: any, site: any, session: any, etag: string | null, done: () => void, again: () => void}} props */
export function Edit({ item, site, session, etag, done, again }) {
  const names = useMemo(() => editable(item, site, session), []);
  /** @type {Record<string, any>} */
  const before = useMemo(() => ({ ...Object.fromEntries(names.map((name) => [name, shown(item, name)])), reason: "" }), []);
  const target = path`/work-items/${item.id}`;
  // Typed on an older version, it is refused once, with the words for what has changed.
  const [said, say, keep, typedOn] = useSaid("edit", `unsent:${session.me.id}:${target}:edit`, [item.id], before, etag);
  const seen = useSeen(item, again, typedOn);
  const locations = useLive(names.includes("location_id") ? path`/sites/${site.id}/locations` : null);
  const people = usePeople(names.includes("assignee_id") ? site.id : null);
  const saved = () => {
    keep([]);
    done();
  };
  const changed = [...names, "reason"].filter((name) => said[name] !== before[name]);
  const body = () => Object.fromEntries(changed.map((name) => [name, taken(name, said[name])]));
  /** @type {Record<string, () => [string, string][]>} */
  const options = {
    severity: () => [["", "–"], ...["critical", "significant", "minor"].map((one) => /** @type {[string, string]} */ ([one, word("severity", one)]))],
    priority: () => [["", "–"], ["1", "1"], ["2", "2"], ["3", "3"], ["4", "4"]],
    assignee_id: () => [["", "–"], ...people.filter((one) => ["engineer", "manager", "contractor"].includes(one.role)).map((one) => /** @type {[string, string]} */ ([one.user_id, one.name]))],
  };
  const set = (/** @type {string} */ name, /** @type {any} */ value) => say({ [name]: value });
  return html`<${Form} label=${t("save")} done=${saved} does=${() => seen.send("PUT", target, body())} request=${() => ["PUT", target, body(), seen.headers]}>
    ${(/** @type {any} */ error) => html`${names.map((name) => {
      const props = { key: name, label: word("field", name), error: error?.status === 412 ? undefined : error?.of?.(name) };
      const input = (/** @type {any} */ event) => set(name, event.target.value);
      if (KINDS[name] === "check") return html`<label class="check" key=${name}><input type="checkbox" checked=${said[name]} onChange=${(/** @type {any} */ event) => set(name, event.target.checked)} /> ${props.label}</label>`;
      if (name === "location_id") return html`<${LocationChoice} ...${props} value=${said[name]} onChange=${(/** @type {string} */ value) => set(name, value)} locations=${locations.data?.locations ?? []} />`;
      if (KINDS[name] === "choice") return html`<${Choice} ...${props} value=${said[name]} onChange=${(/** @type {string} */ value) => set(name, value)} options=${options[name]()} />`;
      if (KINDS[name] === "long" || KINDS[name] === "lines") return html`<${Field} ...${props} hint=${KINDS[name] === "lines" ? t("item.lines") : undefined}>${(/** @type {any} */ attributes) => html`<textarea ...${attributes} value=${said[name]} onInput=${input}></textarea>`}<//>`;
      return html`<${Field} ...${props} type=${KINDS[name] ?? "text"} required=${name === "title"} value=${said[name]} onInput=${input} />`;
    })}
    ${session.operates && html`<${Field} label=${t("step.field.reason")} hint=${t("step.field.reason.hint")} maxlength="2000" value=${said.reason} error=${error?.of?.("reason")} onInput=${(/** @type {any} */ event) => set("reason", event.target.value)} />`}`}
  <//>
  ${changed.length > 0 && html`<${Button} class="plain" onClick=${() => say(before)}>${t("item.edit.discard")}<//>`}`;
}
