// One order: its lines, and the steps that may follow.
import { html, useState } from "../../vendor/preact.js";
import { ask, path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Table } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { KINDS } from "./page.js";

/** @type {Record<string, string[]>} */
const NEXT = { created: ["in_progress", "cancelled"], in_progress: ["completed", "cancelled"] };

/** @param {{id: string}} props */
export function Order({ id }) {
  const target = path`/orders/${id}`;
  const live = useLive(target);
  const [step, setStep] = useState(/** @type {string | null} */ (null));
  const order = live.data;
  const deeds = (NEXT[order?.status] ?? []).map((next) => html`<${Button} key=${next} onClick=${() => setStep(next)}>${t(`order.to.${next}`)}<//>`);
  return html`<${Page} title=${t("order")} deeds=${deeds} live=${live}>
    ${order && html`<div class="stack">
      <p><${Badge} kind=${KINDS[order.status]}>${word("order", order.status)}<//> ${order.cancel_reason ?? ""}</p>
      <${Facts} of=${[
        ["id", html`<code>${order.id}</code>`],
        [t("order.user"), html`<${Link} to=${`/users/${order.user_id}`}>${t("order.user.show")}<//>`],
        [t("order.total"), order.total_amount],
        [t("created"), html`<${Moment} at=${order.created_at} />`],
        [t("updated"), html`<${Moment} at=${order.updated_at} />`],
      ]} />
      <${Table} caption=${t("order.lines")} rows=${order.items.map((/** @type {any} */ item, /** @type {number} */ at) => ({ ...item, id: at }))} columns=${[
        [t("order.product"), (/** @type {any} */ item) => item.product],
        [t("order.quantity"), (/** @type {any} */ item) => item.quantity, "number"],
        [t("order.price"), (/** @type {any} */ item) => item.price, "number"],
      ]} />
      <${Dialog} title=${t(`order.to.${step}`)} open=${step !== null} onClose=${() => setStep(null)}>
        <${Form} label=${t(`order.to.${step}`)} danger=${step === "cancelled"} done=${() => {
          setStep(null);
          live.again();
        }} does=${() => ask(target, { method: "PUT", body: { status: step } })} request=${() => ["PUT", target, { status: step }]} />
      <//>
    </div>`}
  <//>`;
}
