// One step of many work items: how many, with what, and what became of each.
import { html, useMemo, useState } from "../../vendor/preact.js";
import { send } from "../../lib/api.js";
import { Button, Form, Table } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { StepFields, fieldsOf, useSaid } from "./step.js";

/** The most items of one request. */
export const MOST = 500;

/** @param {{step: string, items: any[], session: any, done: (refused: Set<string>) => void}} props */
export function Bulk({ step, items, session, done }) {
  // As they were when the window opened, each sent again under the same id.
  const fit = useMemo(() => items.filter((item) => item.permitted_steps.includes(step)), []);
  const seen = useMemo(() => fit.map((item) => ({ id: item.id, version: item.version, op_id: crypto.randomUUID() })), []);
  const unfit = items.length - fit.length;
  const [said, setSaid] = useSaid(step);
  const [outcome, setOutcome] = useState(/** @type {any} */ (null));
  const sites = new Set(fit.map((item) => item.site_id));
  const shape = { step, site: sites.size === 1 ? fit[0].site_id : null, isDue: fit.some((item) => item.due_on), overrides: session.operates };
  const body = () => ({ step, ...fieldsOf(shape, said), items: seen });
  if (outcome) return html`<${Outcome} outcome=${outcome} items=${fit} done=${done} />`;
  return html`<p>${t("bulk.what", { count: fit.length })}</p>
    ${unfit > 0 && html`<p class="unsure">${t("bulk.unfit", { count: unfit })}</p>`}
    <${Form} label=${t("bulk.do", { step: word("step", step), count: fit.length })} danger=${step === "void"} done=${setOutcome}
      does=${() => send("POST", "/work-items/steps", body())} request=${() => ["POST", "/work-items/steps", body()]}>
      ${(/** @type {any} */ error) => html`<${StepFields} ...${shape} said=${said} setSaid=${setSaid} error=${error} />`}
    <//>`;
}

/** @param {{outcome: any, items: any[], done: (refused: Set<string>) => void}} props */
function Outcome({ outcome, items, done }) {
  const refused = outcome.items.filter((/** @type {any} */ one) => one.error !== null);
  const known = new Map(items.map((item) => [item.id, item]));
  const why = (/** @type {any} */ { error }) => html`${t(`error.${error.code}`) === `error.${error.code}` ? error.message : t(`error.${error.code}`)}
    ${error.details.map((/** @type {any} */ detail) => html`<div class="soft">${word("field", detail.field)}: ${detail.message}</div>`)}`;
  return html`<p role="status"><b class=${refused.length ? "unsure" : "good"}>${t("bulk.taken", { count: outcome.taken })}</b> ${refused.length > 0 && t("bulk.refused", { count: refused.length })}</p>
    ${refused.length > 0 && html`<${Table} caption=${t("bulk.refused", { count: refused.length })} rows=${refused} columns=${[
      [t("item"), (/** @type {any} */ one) => `${known.get(one.id).key} ${known.get(one.id).title}`],
      [t("bulk.why"), why],
    ]} />`}
    <div class="deeds"><${Button} class="main" onClick=${() => done(new Set(refused.map((/** @type {any} */ one) => one.id)))}>${t("close")}<//></div>`;
}
