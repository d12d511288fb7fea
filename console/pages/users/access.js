// What administrators see and do about how somebody logs in.
import { html, useState } from "../../vendor/preact.js";
import { path, ROOT, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Secret } from "../../lib/secret.js";
import { Button, Dialog, Facts, Form, Moment, Problem, Table } from "../../lib/ui.js";
import { number, t, time } from "../../lib/words.js";
import { COLUMNS as KEY_COLUMNS } from "../account/keys.js";
import { COLUMNS as SESSION_COLUMNS } from "../account/sessions.js";

/** Each deed that asks only whether: the request, after the path of the user. @type {Record<string, [string, string]>} */
const DEEDS = { end: ["DELETE", "/sessions"], factors: ["DELETE", "/factors"] };

/** @param {{user: any, account: any}} props account: a live one */
export function Access({ user, account }) {
  const target = path`/users/${user.id}`;
  const sessions = useLive(`${target}/sessions`, { seconds: 15 });
  const keys = useLive(`${target}/keys`, { seconds: 60 });
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const close = () => {
    setAsked(null);
    for (const live of [account, sessions, keys]) live.again();
  };
  const { data } = account;
  const [method, more] = asked?.key ? ["DELETE", path`/keys/${asked.key.id}`] : DEEDS[asked] ?? ["", ""];
  const deed = asked?.key ? "key" : asked;
  return html`<section class="stack"><header class="title"><h2>${t("user.access")}</h2><div class="deeds">
      <${Button} onClick=${() => setAsked("link")}>${t("user.link")}<//>
      ${data?.factors > 0 && html`<${Button} onClick=${() => setAsked("factors")}>${t("user.factors")}<//>`}
      ${sessions.data?.sessions.length > 0 && html`<${Button} onClick=${() => setAsked("end")}>${t("user.end")}<//>`}</div></header>
    <${Problem} error=${account.error} />
    ${data && html`<${Facts} of=${[
      [t("login.password"), t(data.must_change_password ? "user.password.must_change" : data.has_password ? "yes" : "no")],
      [t("user.verified"), data.email_verified_at ? html`<${Moment} at=${data.email_verified_at} />` : t("no")],
      [t("factor"), data.factors > 0 ? number(data.factors) : t("no")],
      [t("identity"), data.identities > 0 ? number(data.identities) : null],
    ]} />`}
    <div><h3>${t("account.sessions")}</h3><${Problem} error=${sessions.error} />
      <${Table} caption=${t("account.sessions")} rows=${sessions.data?.sessions} columns=${SESSION_COLUMNS} /></div>
    ${keys.data?.keys.length > 0 && html`<div><h3>${t("account.keys")}</h3>
      <${Table} caption=${t("account.keys")} rows=${keys.data.keys} columns=${[
        ...KEY_COLUMNS, ["", (/** @type {any} */ key) => html`<${Button} onClick=${() => setAsked({ key })}>${t("account.key.revoke")}<//>`],
      ]} /></div>`}
    <${Dialog} title=${deed ? t(`user.${deed}`) : ""} open=${asked !== null} onClose=${close}>
      ${asked === "link" ? html`<${NewLink} user=${user} invites=${data && !data.has_password} done=${close} />`
        : html`<p>${t(`user.${deed}.what`, { name: user.name })}</p>
          <${Form} danger label=${t(`user.${deed}`)} done=${close} does=${() => send(method, target + more)} request=${() => [method, target + more]} />`}
    <//>
  </section>`;
}

/** @param {{user: any, invites: boolean, done: () => void}} props */
function NewLink({ user, invites, done }) {
  const [purpose, setPurpose] = useState(invites ? "invitation" : "reset");
  const [mail, setMail] = useState(false);
  const [made, setMade] = useState(/** @type {any} */ (null));
  const target = path`/users/${user.id}/link`;
  const body = { purpose, mail };
  if (made) return html`<p role="status">${made.token === null ? t("user.link.mailed", { email: user.email }) : t("user.link.once", { until: time(made.expires_at) })}</p>
    ${made.token !== null && html`<${Secret} value=${`${location.origin}${ROOT}console#/link/${purpose}/${made.token}`} />`}
    <${Button} class="main" onClick=${done}>${t(made.token === null ? "close" : "account.kept")}<//>`;
  return html`<${Form} label=${t("user.link")} done=${setMade} does=${() => send("POST", target, body)} request=${() => ["POST", target, body]}>
    <fieldset><legend>${t("user.link.for")}</legend>
      ${["invitation", "reset", "email"].map((one) => html`<label class="check" key=${one}><input type="radio" name="purpose" checked=${purpose === one} onChange=${() => setPurpose(one)} /> ${t(`user.link.${one}`)}</label>`)}
    </fieldset>
    <label class="check"><input type="checkbox" checked=${mail} onChange=${() => setMail(!mail)} /> ${t("user.link.mail")}</label>
  <//>`;
}
