// Messages from RabbitMQ that made no task: why, and what may be done about one.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { ListTable, useList } from "../../lib/list.js";
import { useLive } from "../../lib/live.js";
import { go } from "../../lib/router.js";
import { Button, Dialog, Facts, Form, Link, Moment, Page } from "../../lib/ui.js";
import { number, t, time } from "../../lib/words.js";
import { Rooms } from "../tasks/rooms.js";

/** @param {any} props */
export default function Messages(props) {
  const [, id] = props.place.parts;
  return id ? html`<${Message} key=${id} id=${id} ...${props} />` : html`<${List} ...${props} />`;
}

/** @param {any} props */
function List({ session }) {
  // Few at a time: each comes with the beginning of its body.
  const list = useList("/tasks/rejected", "rejected", { query: { limit: 20 }, seconds: 5 });
  return html`<${Page} title=${t("nav.messages")} live=${list}><div class="stack">
    <${Rooms} current="messages" session=${session} />
    <${ListTable} list=${list} caption=${t("nav.messages")} empty=${t("messages.none")} columns=${[
      [t("message.reason"), (/** @type {any} */ one) => html`<${Link} to=${`/messages/${one.id}`}>${one.reason}<//>`],
      [t("message.queue"), (/** @type {any} */ one) => one.source],
      [t("message.id"), (/** @type {any} */ one) => one.message_id],
      [t("message.size"), (/** @type {any} */ one) => number(one.size), "number"],
      [t("message.received"), (/** @type {any} */ one) => html`<${Moment} at=${one.received_at} />`],
    ]} />
  </div><//>`;
}

/** @param {{id: string, session: any}} props */
function Message({ id, session }) {
  const target = path`/tasks/rejected/${id}`;
  const live = useLive(target);
  const [asked, setAsked] = useState(/** @type {"requeue" | "forget" | null} */ (null));
  const message = live.data;
  const deeds = message && session.operates && html`<${Button} class="main" onClick=${() => setAsked("requeue")}>${t("message.requeue")}<//>
    <${Button} onClick=${() => setAsked("forget")}>${t("message.forget")}<//>`;
  const request = asked === "forget" ? ["DELETE", target] : ["POST", `${target}/requeue`];
  return html`<${Page} title=${t("message")} deeds=${deeds} live=${live}>
    ${message && html`<div class="stack">
      <p>${message.reason}</p>
      ${message.details.length > 0 && html`<ul>${message.details.map((/** @type {any} */ one) => html`<li key=${one.field}><b>${one.field}</b> ${one.message}</li>`)}</ul>`}
      <${Facts} of=${[
        ["id", html`<code>${message.id}</code>`],
        [t("message.queue"), message.source],
        [t("message.id"), message.message_id],
        [t("message.size"), number(message.size)],
        [t("message.received"), time(message.received_at)],
      ]} />
      <details><summary>${t("message.body")}</summary><pre tabindex="0">${message.body}</pre></details>
      <${Dialog} title=${t(`message.${asked}`)} open=${asked !== null} onClose=${() => setAsked(null)}>
        <p>${t(`message.${asked}.what`)}</p>
        <${Form} danger=${asked === "forget"} label=${t(`message.${asked}`)} does=${() => send(request[0], request[1])} request=${() => request}
          done=${(/** @type {any} */ made) => go(asked === "forget" ? "/messages" : `/tasks/${made.id}`)} />
      <//>
    </div>`}
  <//>`;
}
