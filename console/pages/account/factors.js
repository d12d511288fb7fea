// Second factors: an authenticator app, and codes for the day on which it is lost.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Secret } from "../../lib/secret.js";
import { Button, Deed, Dialog, Field, Form, Moment, Problem, Table } from "../../lib/ui.js";
import { number, t } from "../../lib/words.js";
import { Fresh } from "./fresh.js";

/** @param {{session: any}} props */
export function Factors({ session }) {
  const live = useLive("/auth/factors");
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const close = () => {
    setAsked(null);
    live.again();
  };
  const target = asked?.id && path`/auth/factors/${asked.id}`;
  return html`<section><header class="title"><h2>${t("factor")}</h2><${Deed} onClick=${() => setAsked("new")}>${t("factor.add")}<//></header>
    <p class="soft">${t("factor.what")}</p>
    <${Problem} error=${live.error} />
    <${Table} caption=${t("factor")} rows=${live.data?.factors} columns=${[
      [t("factor.name"), (/** @type {any} */ row) => row.name],
      [t("factor.codes.left"), (/** @type {any} */ row) => html`<span class=${row.recovery_codes_left < 3 ? "bad" : ""}>${number(row.recovery_codes_left)}</span>`],
      [t("account.since"), (/** @type {any} */ row) => html`<${Moment} at=${row.confirmed_at} />`],
      [t("account.used"), (/** @type {any} */ row) => (row.last_used_at ? html`<${Moment} at=${row.last_used_at} />` : t("account.never"))],
      ["", (/** @type {any} */ row) => html`<${Deed} onClick=${() => setAsked(row)}>${t("factor.remove")}<//>`],
    ]} />
    <${Dialog} title=${t(target ? "factor.remove" : "factor.add")} open=${asked !== null} onClose=${close}>
      ${target ? html`<p>${t("factor.remove.what", { name: asked.name })}</p>
          <${Fresh} session=${session} danger label=${t("factor.remove")} does=${() => send("DELETE", target)} done=${close} request=${() => ["DELETE", target]} />`
        : html`<${NewFactor} session=${session} done=${close} />`}
    <//>
  </section>`;
}

/** @param {{session: any, done: () => void}} props */
function NewFactor({ session, done }) {
  const [name, setName] = useState("");
  const [made, setMade] = useState(/** @type {any} */ (null));
  const [code, setCode] = useState("");
  const [confirmed, setConfirmed] = useState(/** @type {any} */ (null));
  if (confirmed) return html`<p role="status">${t("factor.codes")}</p><${Secret} value=${confirmed.recovery_codes.join("\n")} />
    <${Button} class="main" onClick=${done}>${t("account.kept")}<//>`;
  if (made) {
    const target = path`/auth/factors/${made.id}/confirm`;
    return html`<p>${t("factor.secret")}</p>
      <${Secret} value=${made.secret.match(/.{1,4}/g).join(" ")} />
      <p><a href=${made.uri}>${t("factor.open")}</a></p>
      <${Form} label=${t("factor.confirm")} done=${setConfirmed} does=${() => send("POST", target, { code: code.trim() })} request=${() => ["POST", target, { code: "…" }]}>
        ${(/** @type {any} */ error) => html`<${Field} label=${t("factor.code")} required autofocus inputmode="numeric" autocomplete="one-time-code" minlength="6" maxlength="10"
          value=${code} error=${error?.of?.("code") && { field: "code", message: t("factor.code.wrong") }} onInput=${(/** @type {any} */ event) => setCode(event.target.value)} />`}
      <//>`;
  }
  return html`<${Fresh} session=${session} label=${t("factor.add")} done=${setMade} does=${() => send("POST", "/auth/factors", { name })} request=${() => ["POST", "/auth/factors", { name }]}>
    ${(/** @type {any} */ error) => html`<${Field} label=${t("factor.name")} hint=${t("factor.name.hint")} required maxlength="200" autocomplete="off" value=${name} error=${error?.of?.("name")}
      onInput=${(/** @type {any} */ event) => setName(event.target.value)} />`}
  <//>`;
}
