// A new order.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { People } from "../../lib/people.js";
import { go } from "../../lib/router.js";
import { Button, Dialog, Field, Form, Page } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { asItems, EMPTY, Lines } from "./lines.js";

/** A word that names this form, so that however often it is sent it makes one order. */
const made = () => [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");

/** @param {any} props */
export function NewOrder({ place, session }) {
  const [userId, setUserId] = useState(/** @type {string | null} */ (place.query.user_id ?? session.me.id));
  const [lines, setLines] = useState([EMPTY]);
  const [choosing, setChoosing] = useState(false);
  const [key, setKey] = useState(made);
  const user = useLive(userId && path`/users/${userId}`);
  const body = () => ({ user_id: userId, items: asItems(lines) });
  const change = (/** @type {typeof lines} */ changed) => {
    setLines(changed);
    setKey(made());
  };
  const choose = (/** @type {any} */ chosen) => {
    setUserId(chosen.id);
    setKey(made());
    setChoosing(false);
  };
  return html`<${Page} title=${t("order.new")}>
    <div class="card order"><${Form} label=${t("order.new.do")} done=${(/** @type {any} */ order) => go(`/orders/${order.id}`)}
        does=${() => send("POST", "/orders", body(), { "Idempotency-Key": key })} request=${() => ["POST", "/orders", body()]}>
      ${(/** @type {any} */ error) => html`
        ${session.operates && html`<${Field} label=${t("order.user")} error=${error?.of?.("user_id")}>${(/** @type {any} */ attributes) => html`<div>
          <${Button} ...${attributes} aria-label=${`${t("order.user")}: ${user.data?.name ?? t("order.user.choose")}`} onClick=${() => setChoosing(true)}>${user.data?.name ?? t("order.user.choose")}<//></div>`}<//>`}
        <${Lines} lines=${lines} onChange=${change} error=${error} />`}
    <//></div>
    <${Dialog} title=${t("order.user")} open=${choosing} onClose=${() => setChoosing(false)}><${People} onChoose=${choose} /><//>
  <//>`;
}
