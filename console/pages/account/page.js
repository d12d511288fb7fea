// One's own account: password, sessions and keys.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Button, Dialog, Facts, Field, Form, Moment, Page, Problem, Table } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";

/** @param {any} props */
export default function Account({ session }) {
  const sessions = useLive("/auth/sessions");
  const keys = useLive("/auth/keys");
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const again = () => {
    setAsked(null);
    sessions.again();
    keys.again();
  };
  const { me } = session;
  return html`<${Page} title=${t("nav.account")} deeds=${html`<${Button} onClick=${() => setAsked("password")}>${t("account.password")}<//>`}>
    <div class="stack">
      <${Facts} of=${[[t("user.name"), me.name], [t("user.email"), me.email], [t("user.roles"), me.roles.map((/** @type {string} */ role) => word("role", role)).join(", ")]]} />
      <section><h2>${t("account.sessions")}</h2><${Problem} error=${sessions.error} />
        <${Table} caption=${t("account.sessions")} rows=${sessions.data?.sessions ?? []} columns=${[
          [t("account.agent"), (/** @type {any} */ row) => `${row.agent}${row.current ? ` · ${t("account.this")}` : ""}`],
          [t("account.address"), (/** @type {any} */ row) => row.address],
          [t("account.used"), (/** @type {any} */ row) => html`<${Moment} at=${row.refreshed_at} />`],
          ["", (/** @type {any} */ row) => html`<${Button} onClick=${() => setAsked({ end: path`/auth/sessions/${row.id}` })}>${t("account.end")}<//>`],
        ]} /></section>
      <section><header class="title"><h2>${t("account.keys")}</h2><${Button} onClick=${() => setAsked("key")}>${t("account.key.make")}<//></header><${Problem} error=${keys.error} />
        <${Table} caption=${t("account.keys")} rows=${keys.data?.keys ?? []} columns=${[
          [t("account.key.name"), (/** @type {any} */ row) => row.name],
          [t("account.key.scopes"), (/** @type {any} */ row) => row.scopes.join(", ")],
          [t("created"), (/** @type {any} */ row) => html`<${Moment} at=${row.created_at} />`],
          ["", (/** @type {any} */ row) => html`<${Button} onClick=${() => setAsked({ end: path`/auth/keys/${row.id}` })}>${t("account.end")}<//>`],
        ]} /></section>
      <${Dialog} title=${t(asked?.end ? "account.end" : asked === "key" ? "account.key.make" : "account.password")} open=${asked !== null} onClose=${again}>
        ${asked?.end && html`<${Form} danger label=${t("account.end")} does=${() => send("DELETE", asked.end)} done=${again} request=${() => ["DELETE", asked.end]} />`}
        ${asked === "password" && html`<${Password} done=${again} />`}
        ${asked === "key" && html`<${Key} />`}
      <//>
    </div>
  <//>`;
}

/** @param {{done: () => void}} props */
function Password({ done }) {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  return html`<${Form} label=${t("save")} done=${done} does=${() => send("PUT", "/auth/password", { current, new: next })}>
    ${(/** @type {any} */ error) => html`
      <${Field} label=${t("account.password.current")} type="password" autocomplete="current-password" required value=${current} error=${error?.of?.("current")} onInput=${(/** @type {any} */ event) => setCurrent(event.target.value)} />
      <${Field} label=${t("account.password.new")} hint=${t("account.password.hint")} type="password" autocomplete="new-password" required value=${next} error=${error?.of?.("new")} onInput=${(/** @type {any} */ event) => setNext(event.target.value)} />`}
  <//>`;
}

function Key() {
  const [name, setName] = useState("");
  const [scopes, setScopes] = useState(["read"]);
  const [made, setMade] = useState(/** @type {any} */ (null));
  if (made) return html`<p>${t("account.key.once")}</p><pre>${made.key}</pre>`;
  const toggle = (/** @type {string} */ scope) => setScopes(scopes.includes(scope) ? scopes.filter((one) => one !== scope) : [...scopes, scope]);
  return html`<${Form} label=${t("account.key.make")} done=${setMade} does=${() => send("POST", "/auth/keys", { name, scopes })} request=${() => ["POST", "/auth/keys", { name, scopes }]}>
    <${Field} label=${t("account.key.name")} required value=${name} onInput=${(/** @type {any} */ event) => setName(event.target.value)} />
    ${["read", "orders", "tasks", "sites", "admin"].map((scope) => html`<label class="check" key=${scope}><input type="checkbox" checked=${scopes.includes(scope)} onChange=${() => toggle(scope)} /> ${scope}</label>`)}
  <//>`;
}
