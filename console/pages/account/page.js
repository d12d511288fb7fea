// One's own account: who one is, and all that lets one in.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { NewPassword } from "../../lib/password.js";
import { refine } from "../../lib/router.js";
import { Button, Dialog, Facts, Field, Form, Page, Problem } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { Factors } from "./factors.js";
import { Fresh } from "./fresh.js";
import { Identities } from "./identities.js";
import { Keys } from "./keys.js";
import { Sessions } from "./sessions.js";

/** @param {any} props */
export default function Account({ place, session }) {
  const [asked, setAsked] = useState(/** @type {string | null} */ (null));
  const { me, again } = session;
  const { failed } = place.query;
  const close = () => setAsked(null);
  const changed = () => {
    close();
    again();
  };
  const deeds = me.id !== null && html`<${Button} onClick=${() => setAsked("name")}>${t("account.name")}<//>
    ${!session.open && html`<${Button} onClick=${() => setAsked("email")}>${t("account.email")}<//>
      <${Button} onClick=${() => setAsked("password")}>${t("account.password")}<//>`}`;
  return html`<${Page} title=${t("nav.account")} deeds=${deeds}>
    <div class="stack">
      ${failed && html`<${Problem} error=${{ code: failed }} /><${Button} onClick=${() => refine({ failed: undefined })}>${t("close")}<//>`}
      <${Facts} of=${[[t("user.name"), me.name], [t("user.email"), me.email], [t("user.roles"), me.roles.map((/** @type {string} */ role) => word("role", role)).join(", ")]]} />
      ${session.open ? html`<p>${t("account.open")}</p>` : html`
        <${Sessions} />
        <${Factors} session=${session} />
        <${Identities} session=${session} />
        <${Keys} />`}
      <${Dialog} title=${t(`account.${asked ?? "name"}`)} open=${asked !== null} onClose=${close}>
        ${asked === "name" && html`<${Name} me=${me} done=${changed} />`}
        ${asked === "email" && html`<${Email} session=${session} done=${close} />`}
        ${asked === "password" && html`<p>${t("account.password.what")}</p><${NewPassword} email=${me.email} done=${changed} />`}
      <//>
    </div>
  <//>`;
}

/** @param {{me: any, done: () => void}} props */
function Name({ me, done }) {
  const [name, setName] = useState(me.name);
  const target = path`/users/${me.id}`;
  return html`<${Form} label=${t("save")} done=${done} does=${() => send("PUT", target, { name })} request=${() => ["PUT", target, { name }]}>
    ${(/** @type {any} */ error) => html`<${Field} label=${t("user.name")} autocomplete="name" required maxlength="200" value=${name} error=${error?.of?.("name")}
      onInput=${(/** @type {any} */ event) => setName(event.target.value)} />`}
  <//>`;
}

/** Another address, which a link has yet to prove. @param {{session: any, done: () => void}} props */
function Email({ session, done }) {
  const [email, setEmail] = useState("");
  const [asked, setAsked] = useState(false);
  if (asked) return html`<p role="status">${t("account.email.sent", { email })}</p><${Button} onClick=${done}>${t("close")}<//>`;
  return html`<${Fresh} session=${session} label=${t("account.email.ask")} done=${() => setAsked(true)} does=${() => send("POST", "/auth/email", { email })}
    request=${() => ["POST", "/auth/email", { email }]}>
    ${(/** @type {any} */ error) => html`<${Field} label=${t("account.email.new")} type="email" autocomplete="email" required value=${email} error=${error?.of?.("email")}
      onInput=${(/** @type {any} */ event) => setEmail(event.target.value)} />`}
  <//>`;
}
