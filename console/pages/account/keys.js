// Keys for programs.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Secret } from "../../lib/secret.js";
import { Button, Deed, Dialog, Field, Form, Moment, Problem, Table } from "../../lib/ui.js";
import { t, time, word } from "../../lib/words.js";

const SCOPES = ["read", "orders", "tasks", "sites", "admin"];

/** Columns of a table of keys. @type {[string, (row: any) => any][]} */
export const COLUMNS = [
  [t("account.key.name"), (row) => html`${row.name} <code class="soft">…${row.hint}</code>`],
  [t("account.key.scopes"), (row) => row.scopes.map((/** @type {string} */ scope) => word("scope", scope)).join(", ")],
  [t("created"), (row) => html`<${Moment} at=${row.created_at} />`],
  [t("account.key.ends"), (row) => (row.expires_at ? time(row.expires_at) : t("account.never"))],
  [t("account.used"), (row) => (row.last_used_at ? html`<${Moment} at=${row.last_used_at} />` : t("account.never"))],
];

export function Keys() {
  const live = useLive("/auth/keys", { seconds: 60 });
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const close = () => {
    setAsked(null);
    live.again();
  };
  const target = asked?.id && path`/auth/keys/${asked.id}`;
  return html`<section><header class="title"><h2>${t("account.keys")}</h2><${Deed} onClick=${() => setAsked("new")}>${t("account.key.make")}<//></header>
    <p class="soft">${t("account.keys.what")}</p>
    <${Problem} error=${live.error} />
    <${Table} caption=${t("account.keys")} rows=${live.data?.keys} columns=${[
      ...COLUMNS, ["", (/** @type {any} */ row) => html`<${Deed} onClick=${() => setAsked(row)}>${t("account.key.revoke")}<//>`],
    ]} />
    <${Dialog} title=${t(target ? "account.key.revoke" : "account.key.make")} open=${asked !== null} onClose=${close}>
      ${target ? html`<p>${t("account.key.revoke.what", { name: asked.name })}</p>
          <${Form} danger label=${t("account.key.revoke")} does=${() => send("DELETE", target)} done=${close} request=${() => ["DELETE", target]} />`
        : html`<${NewKey} done=${close} />`}
    <//>
  </section>`;
}

/** @param {{done: () => void}} props */
function NewKey({ done }) {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["read"]);
  const [until, setUntil] = useState("");
  const [made, setMade] = useState(/** @type {any} */ (null));
  if (made) return html`<p role="status">${t("account.once")}</p><${Secret} value=${made.key} /><${Button} class="main" onClick=${done}>${t("account.kept")}<//>`;
  const toggle = (/** @type {string} */ scope) => setScopes(SCOPES.filter((one) => (one === scope) !== scopes.includes(one)));
  // To the end of that day, here.
  const body = () => ({ name, scopes, ...(until && { expires_at: new Date(`${until}T23:59:59`).toISOString() }) });
  return html`<${Form} label=${t("account.key.make")} done=${setMade} does=${() => send("POST", "/auth/keys", body())} request=${() => ["POST", "/auth/keys", body()]}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("account.key.name")} required maxlength="200" autocomplete="off" value=${name} error=${error?.of?.("name")} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
      <fieldset><legend>${t("account.key.scopes")}</legend>
        ${SCOPES.map((scope) => html`<label class="check" key=${scope}><input type="checkbox" checked=${scopes.includes(scope)} onChange=${() => toggle(scope)} /> ${word("scope", scope)}</label>`)}
      </fieldset>
      <${Field} label=${t("account.key.until")} hint=${t("account.key.until.hint")} type="date" value=${until} error=${error?.of?.("expires_at")} onInput=${(/** @type {any} */ event) => setUntil(event.target.value)} />`}
  <//>`;
}
