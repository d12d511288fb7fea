// One step of a work item, with the fields that it takes.
import { html, useId, useMemo, useState } from "../../vendor/preact.js";
import { path } from "../../lib/api.js";
import { Choice, Field, Form } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { ItemChoice, employers, usePeople, useSeen } from "./choices.js";

/** Today where it is earliest: no site takes a date before. */
const today = () => new Date(Date.now() - 12 * 3_600_000).toISOString().slice(0, 10);

/** @typedef {{step: string, site: string | null, isDue: boolean, overrides: boolean, isStranger?: boolean}} Shape site: null: of several; isStranger: an administrator who is none of the site's people */

/** The fields of each step; the API says what is missing. @type {Record<string, string[]>} */
const FIELDS = {
  submit: ["due_on"],
  admit: ["due_on"],
  assign: ["assignee_id", "organisation", "due_on"],
  move_deadline: ["due_on", "reason"],
  report_done: ["note"],
  dispute: ["reason"],
  settle: ["outcome"],
  return: ["reason"],
  accept_as_is: ["reason"],
  reopen: ["due_on", "reason"],
  void: ["resolution", "reason"],
};
/** @type {Record<string, string[]>} */
const NEEDED = { move_deadline: ["due_on", "reason"], report_done: ["note"], dispute: ["reason"], return: ["reason"], reopen: ["due_on", "reason"] };
const ENDINGS = ["no_defect", "mistake", "duplicate"];

/** The fields to be filled in, by what was said so far. @param {Shape} shape @param {Record<string, string>} said */
function namesOf({ step, site, isDue, overrides }, said) {
  const names = (FIELDS[step] ?? []).filter((name) => site !== null || name !== "assignee_id");
  if (step === "settle" && said.outcome === "void") names.push("resolution", "reason");
  if (names.includes("resolution") && said.resolution === "duplicate" && site !== null) names.splice(names.indexOf("resolution") + 1, 0, "duplicate_of");
  const isMoved = step === "assign" && isDue && Boolean(said.due_on);
  if ((isMoved || overrides) && !names.includes("reason")) names.push("reason");
  return names;
}

/** What was said, as the API takes it. @param {Shape} shape @param {Record<string, string>} said */
export function fieldsOf(shape, said) {
  return Object.fromEntries(namesOf(shape, said).filter((name) => said[name]).map((name) => [name, said[name]]));
}

/**
 * What is said with a step, how to say more, how to tell for which items it is still unsaid once it was taken, and the
 * ETag of what was there when it was typed. What was typed, and is not what was there first, outlives a closed dialog and
 * page, for the same items or some of them.
 * @param {string} step @param {string} unsent where it is kept @param {string[]} ids @param {Record<string, any>} [first] @param {string | null} [etag]
 * @returns {[Record<string, any>, (more: Record<string, any>) => void, (left: string[]) => void, string | null]}
 */
export function useSaid(step, unsent, ids, first = {}, etag = null) {
  const [{ typed, seen }, setKept] = useState(() => {
    const kept = JSON.parse(localStorage.getItem(unsent) ?? "null");
    return kept && ids.every((id) => kept.ids.includes(id)) ? kept : { typed: {}, seen: etag };
  });
  // Which item it is a duplicate of has to be found again.
  const keep = (/** @type {string[]} */ left, /** @type {Record<string, any>} */ { duplicate_of, ...rest }) =>
    (left.length > 0 ? localStorage.setItem(unsent, JSON.stringify({ ids: left, typed: rest, seen })) : localStorage.removeItem(unsent));
  const say = (/** @type {Record<string, any>} */ more) => {
    const changed = Object.fromEntries(Object.entries({ ...typed, ...more }).filter(([name, value]) => value !== first[name]));
    setKept({ typed: changed, seen });
    keep(Object.keys(changed).length > 0 ? ids : [], changed);
  };
  return [{ outcome: "open", resolution: step === "void" ? "mistake" : "no_defect", ...first, ...typed }, say, (left) => keep(left, typed), seen];
}

/** @param {Shape & {said: Record<string, string>, say: (more: Record<string, string>) => void, error: any}} props */
export function StepFields({ said, say, error, ...shape }) {
  const { step, site } = shape;
  const people = usePeople(step === "assign" ? site : null);
  const list = useId();
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => say({ [name]: event?.target ? event.target.value : event });
  return namesOf(shape, said).map((name) => {
    const props = { label: t(`step.field.${name}`), error: error?.of?.(name), key: name };
    const required = NEEDED[step]?.includes(name) || (name === "reason" && (shape.isStranger || (step === "assign" && shape.isDue && Boolean(said.due_on)))) || undefined;
    if (name === "assignee_id") return html`<${Choice} ...${props} value=${said.assignee_id ?? ""} onChange=${set(name)} options=${[["", "–"], ...people.filter((one) =>
      ["engineer", "manager", "contractor"].includes(one.role) && !one.disabled).map((one) => [one.user_id, [one.name, one.organisation, word("member", one.role)].filter(Boolean).join(", ")])]} />`;
    if (name === "organisation") return html`<${Field} ...${props} hint=${site !== null && t("step.field.organisation.hint")} list=${list} maxlength="200" value=${said.organisation ?? ""} onInput=${set(name)} />
      <datalist id=${list}>${employers(people).map((one) => html`<option value=${one} />`)}</datalist>`;
    if (name === "outcome") return html`<${Choice} ...${props} value=${said.outcome} onChange=${set(name)} options=${["open", "void"].map((one) => [one, word("state", one)])} />`;
    if (name === "resolution") return html`<${Choice} ...${props} value=${said.resolution} onChange=${set(name)} options=${ENDINGS.filter((one) => site !== null || one !== "duplicate").map((one) => [one, word("resolution", one)])} />`;
    if (name === "duplicate_of") return html`<${ItemChoice} ...${props} site=${site} value=${said.duplicate_of ?? ""} onChange=${set(name)} />`;
    if (name === "due_on") return html`<${Field} ...${props} type="date" min=${today()} required=${required} value=${said.due_on ?? ""} onInput=${set(name)} />`;
    return html`<${Field} ...${props} hint=${name === "reason" && !FIELDS[step]?.includes("reason") && shape.overrides ? t("step.field.reason.hint") : undefined}>${(/** @type {any} */ attributes) =>
      html`<textarea ...${attributes} required=${required} maxlength="2000" value=${said[name] ?? ""} onInput=${set(name)}></textarea>`}<//>`;
  });
}

/** @param {{item: any, site: any, step: string, session: any, done: () => void, again: () => void}} props */
export function StepForm({ item, site, step, session, done, again }) {
  // Sent again, it is taken once.
  const key = useMemo(() => crypto.randomUUID(), [item.id, step]);
  const seen = useSeen(item, again);
  const target = path`/work-items/${item.id}/steps`;
  const [said, say, keep] = useSaid(step, `unsent:${session.me.id}:${target}:${step}`, [item.id], step === "assign" && item.assignee?.id ? { assignee_id: item.assignee.id } : {});
  const taken = () => {
    keep([]);
    done();
  };
  const shape = { step, site: item.site_id, isDue: item.due_on !== null, overrides: session.operates, isStranger: session.operates && site?.role === null };
  const body = () => ({ step, op_id: key, ...fieldsOf(shape, said) });
  return html`<${Form} label=${word("step", step)} danger=${step === "void"} done=${taken} does=${() => seen.send("POST", target, body())} request=${() => ["POST", target, body(), seen.headers]}
    unable=${(/** @type {any} */ error) => [409, 412].includes(error?.status) && !item.permitted_steps.includes(step) && t("item.step.gone")}>
    ${(/** @type {any} */ error) => html`<${StepFields} ...${shape} said=${said} say=${say} error=${error} />`}
  <//>`;
}
