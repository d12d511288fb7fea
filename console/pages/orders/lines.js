// The lines of an order, to be written.
import { html } from "../../vendor/preact.js";
import { Button, Field } from "../../lib/ui.js";
import { money, t } from "../../lib/words.js";

/** @typedef {{product: string, quantity: number | string, price: string}} Line */

/** @type {Line} */
export const EMPTY = { product: "", quantity: 1, price: "" };

/** What the lines come to, in hundredths, so that nothing is lost on the way. @param {Line[]} lines */
const total = (lines) => lines.reduce((sum, line) => sum + Math.round(Number(line.price) * 100) * Number(line.quantity), 0) / 100;

/** As the API takes them. @param {Line[]} lines */
export const asItems = (lines) => lines.map(({ product, quantity, price }) => ({ product, quantity: Number(quantity), price: Number(price) }));

/** @param {{lines: Line[], onChange: (lines: Line[]) => void, error: any}} props */
export function Lines({ lines, onChange, error }) {
  const change = (/** @type {number} */ at, /** @type {Partial<Line>} */ changed) => onChange(lines.map((line, one) => (one === at ? { ...line, ...changed } : line)));
  return html`${lines.map((line, at) => html`<fieldset key=${at}><legend>${t("order.line", { number: at + 1 })}</legend>
      <${Field} label=${t("order.product")} required maxlength="200" autocomplete="off" value=${line.product} error=${error?.of?.(`items.${at}.product`)}
        onInput=${(/** @type {any} */ event) => change(at, { product: event.target.value })} />
      <div class="filters">
        <${Field} label=${t("order.quantity")} required type="number" min="1" max="1000000" step="1" inputmode="numeric" value=${line.quantity} error=${error?.of?.(`items.${at}.quantity`)}
          onInput=${(/** @type {any} */ event) => change(at, { quantity: event.target.value })} />
        <${Field} label=${t("order.price")} required type="number" min="0" max="99999999.99" step="0.01" inputmode="decimal" value=${line.price} error=${error?.of?.(`items.${at}.price`)}
          onInput=${(/** @type {any} */ event) => change(at, { price: event.target.value })} />
        ${lines.length > 1 && html`<${Button} onClick=${() => onChange(lines.filter((_, one) => one !== at))}>${t("order.line.remove")}<//>`}
      </div></fieldset>`)}
    <div class="deeds">${lines.length < 200 && html`<${Button} onClick=${() => onChange([...lines, EMPTY])}>${t("order.line.add")}<//>`}
      <output>${t("order.sum", { sum: money(String(total(lines))) })}</output></div>`;
}
