// One order: its lines, and the steps that may follow.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Badge, Button, Dialog, Facts, Form, Link, Moment, Page, Table } from "../../lib/ui.js";
import { money, number, t, word } from "../../lib/words.js";
import { asItems, Lines } from "./lines.js";
import { KINDS } from "./page.js";

/** What may follow a state, as the service's own table has it. @type {Record<string, string[]>} */
const DEEDS = {
  created: ["in_progress", "lines", "cancelled", "delete"], in_progress: ["completed", "cancelled"], cancelled: ["delete"],
};

/** @param {{id: string, session: any}} props */
export function Order({ id, session }) {
  const target = path`/orders/${id}`;
  const live = useLive(target, { seconds: 15 });
  const order = live.data;
  const user = useLive(order && path`/users/${order.user_id}`);
  const [asked, setAsked] = useState(/** @type {string | null} */ (null));
  // What was seen when the deed was asked for: another change meanwhile is told, not overwritten.
  const [seen, setSeen] = useState("*");
  const ask = (/** @type {string} */ deed) => {
    setSeen(live.etag ?? "*");
    setAsked(deed);
  };
  const close = () => {
    setAsked(null);
    live.again();
  };
  const done = () => (asked === "delete" ? go("/orders") : close());
  const deeds = (session.operates || !session.inspects) && (DEEDS[order?.status] ?? []).map((deed) => html`<${Button} key=${deed} onClick=${() => ask(deed)}>${t(`order.to.${deed}`)}<//>`);
  /** @type {() => [string, string, unknown?, Record<string, string>?]} */
  const request = () => (asked === "delete" ? ["DELETE", target, undefined, { "If-Match": seen }] : ["PUT", target, { status: asked }, { "If-Match": seen }]);
  return html`<${Page} title=${t("order")} deeds=${deeds} live=${live}>
    ${order && html`<div class="stack">
      <p><${Badge} kind=${KINDS[order.status]}>${word("order", order.status)}<//> ${order.cancel_reason ?? ""}</p>
      <${Facts} of=${[
        ["id", html`<code>${order.id}</code>`],
        [t("order.user"), html`<${Link} to=${`/users/${order.user_id}`}>${user.data?.name ?? t("order.user.show")}<//>`],
        [t("order.total"), html`<b>${money(order.total_amount)}</b>`],
        [t("created"), html`<${Moment} at=${order.created_at} />`],
        [t("updated"), html`<${Moment} at=${order.updated_at} />`],
      ]} />
      <${Table} caption=${t("order.lines")} rows=${order.items.map((/** @type {any} */ item, /** @type {number} */ at) => ({ ...item, id: at }))} columns=${[
        [t("order.product"), (/** @type {any} */ item) => item.product, "name"],
        [t("order.quantity"), (/** @type {any} */ item) => number(item.quantity), "number brief when"],
        [t("order.price"), (/** @type {any} */ item) => money(item.price), "number brief when"],
        [t("order.line.total"), (/** @type {any} */ item) => money(String((Math.round(item.price * 100) * item.quantity) / 100)), "number brief when"],
      ]} />
      <${Dialog} title=${t(`order.to.${asked ?? "lines"}`)} open=${asked !== null} onClose=${close}>
        ${asked === "lines" ? html`<${Change} order=${order} target=${target} seen=${seen} done=${done} />`
          : html`<p>${t(`order.to.${asked}.what`)}</p>
            <${Form} label=${t(`order.to.${asked}`)} danger=${asked === "cancelled" || asked === "delete"} done=${done} does=${() => send(...request())} request=${request} />`}
      <//>
    </div>`}
  <//>`;
}

/** Other lines, while the order is created. @param {{order: any, target: string, seen: string, done: () => void}} props */
function Change({ order, target, seen, done }) {
  const [lines, setLines] = useState(order.items);
  /** @type {() => [string, string, unknown, Record<string, string>]} */
  const request = () => ["PUT", target, { items: asItems(lines) }, { "If-Match": seen }];
  return html`<${Form} label=${t("save")} done=${done} does=${() => send(...request())} request=${request}>
    ${(/** @type {any} */ error) => html`<${Lines} lines=${lines} onChange=${setLines} error=${error} />`}
  <//>`;
}
