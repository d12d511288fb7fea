// One step of many work items: how many, with what, and what became of each.
import { html, useState } from "../../vendor/preact.js";
import { send } from "../../lib/api.js";
import { Button, Form, Table } from "../../lib/ui.js";
import { t, told, word } from "../../lib/words.js";
import { StepFields, fieldsOf, useSaid } from "./step.js";

/** The most items of one request. */
export const MOST = 500;

/**
 * `items` are those chosen; `taken` gets which of them were refused, as soon as the API has answered.
 * @param {{step: string, items: any[], session: any, taken: (refused: Set<string>) => void, close: () => void}} props
 */
export function Bulk({ step, items, session, taken, close }) {
  // As they were when the form was opened, each sent again under the same id.
  const begin = () => {
    const fit = items.filter((item) => item.permitted_steps.includes(step));
    return { fit, unfit: items.length - fit.length, seen: fit.map((item) => ({ id: item.id, version: item.version, op_id: crypto.randomUUID() })) };
  };
  const [{ fit, unfit, seen }, setTurn] = useState(begin);
  const [said, say, keep] = useSaid(step, `unsent:${session.me.id}:/work-items/steps:${step}`, seen.map(({ id }) => id));
  const [outcome, setOutcome] = useState(/** @type {any} */ (null));
  const sites = new Set(fit.map((item) => item.site_id));
  const shape = { step, site: sites.size === 1 ? fit[0].site_id : null, isDue: fit.some((item) => item.due_on), overrides: session.operates };
  const body = () => ({ step, ...fieldsOf(shape, said), items: seen });
  const take = async () => {
    const made = await send("POST", "/work-items/steps", body());
    for (const { error } of made.items) if (error) error.details = await told(error.details);
    return made;
  };
  const done = (/** @type {any} */ made) => {
    setOutcome(made);
    const refused = made.items.filter((/** @type {any} */ one) => one.error !== null).map((/** @type {any} */ one) => one.id);
    keep(refused);
    taken(new Set(refused));
  };
  const again = () => {
    setTurn(begin);
    setOutcome(null);
  };
  if (outcome) return html`<${Outcome} outcome=${outcome} items=${fit} again=${again} close=${close} />`;
  return html`<p>${t("bulk.what", { count: fit.length })}</p>
    ${unfit > 0 && html`<p class="unsure">${t("bulk.unfit", { count: unfit })}</p>`}
    <${Form} label=${t("bulk.do", { step: word("step", step), count: fit.length })} danger=${step === "void"} done=${done}
      does=${take} request=${() => ["POST", "/work-items/steps", body()]}>
      ${(/** @type {any} */ error) => html`<${StepFields} ...${shape} said=${said} say=${say} error=${error} />`}
    <//>`;
}

/** Each reason once, with the items that were refused for it. @param {{outcome: any, items: any[], again: () => void, close: () => void}} props */
function Outcome({ outcome, items, again, close }) {
  const refused = outcome.items.filter((/** @type {any} */ one) => one.error !== null);
  const known = new Map(items.map((item) => [item.id, item]));
  /** @type {Map<string, any[]>} */
  const reasons = new Map();
  for (const one of refused) {
    const key = JSON.stringify([one.error.code, one.error.details]);
    reasons.set(key, [...(reasons.get(key) ?? []), one]);
  }
  return html`<p role="status"><b class=${refused.length ? "unsure" : "good"}>${t("bulk.taken", { count: outcome.taken })}</b> ${refused.length > 0 && t("bulk.refused", { count: refused.length })}</p>
    ${refused.length > 0 && html`<${Table} caption=${t("bulk.refused", { count: refused.length })} rows=${[...reasons]} id=${(/** @type {any} */ [key]) => key} columns=${[
      [t("bulk.why"), (/** @type {any} */ [, [{ error }]]) => html`<${Why} error=${error} />`],
      [t("item"), (/** @type {any} */ [, some]) => some.map((/** @type {any} */ { id }) => html`<div key=${id}>${known.get(id).key} ${known.get(id).title}</div>`)],
    ]} />`}
    <div class="deeds">${refused.length > 0 && html`<${Button} class="main" onClick=${again}>${t("bulk.again", { count: refused.length })}<//>`}
      <${Button} class=${refused.length > 0 ? "" : "main"} onClick=${close}>${t("close")}<//></div>`;
}

/** @param {{error: any}} props */
function Why({ error }) {
  const known = t(`error.${error.code}`);
  const words = known === `error.${error.code}` ? error.message : known;
  return html`${(error.code !== "invalid_input" || error.details.length === 0) && html`<div>${words}</div>`}
    ${error.details.map((/** @type {any} */ detail) => html`<div>${word("field", detail.field)}: ${detail.message}</div>`)}`;
}
