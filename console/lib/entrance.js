// The way in: address and password, and where somebody has one, the second factor.
import { html, useState } from "../vendor/preact.js";
import { send } from "./api.js";
import { Field, Form, Page } from "./ui.js";
import { t } from "./words.js";

/** @param {{onIn: () => void}} props */
export function Entrance({ onIn }) {
  const [email, setEmail] = useState("");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [pending, setPending] = useState(/** @type {string | null} */ (null));

  const enter = async () => {
    const made = pending
      ? await send("POST", "/auth/login/code", { pending_token: pending, code })
      : await send("POST", "/auth/login", { email, password, session: "cookie" });
    setPassword("");
    setPending(made.pending_token);
    return made;
  };
  const entered = (/** @type {any} */ made) => made.pending_token === null && onIn();

  return html`<${Page} title=${t("login.title")}><div class="card narrow">
    <${Form} does=${enter} done=${entered} label=${t("login.do")}>
      ${pending
        ? html`<${Field} label=${t("login.code")} hint=${t("login.code.hint")} value=${code} required autofocus
            autocomplete="one-time-code" onInput=${(/** @type {any} */ event) => setCode(event.target.value)} />`
        : html`<${Field} label=${t("login.email")} type="email" value=${email} required autocomplete="username"
            onInput=${(/** @type {any} */ event) => setEmail(event.target.value)} />
          <${Field} label=${t("login.password")} type="password" value=${password} required autocomplete="current-password"
            onInput=${(/** @type {any} */ event) => setPassword(event.target.value)} />`}
    <//>
    <p class="soft">${t("login.help")}</p>
  </div><//>`;
}
