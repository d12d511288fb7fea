// The way in: address and password, and where somebody has one, the second factor; or the sign-in provider.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { ApiError, read, send } from "../../lib/api.js";
import { useDeed } from "../../lib/live.js";
import { NewPassword } from "../../lib/password.js";
import { leave } from "../../lib/top.js";
import { Look } from "../../lib/look.js";
import { Button, Field, Form, Page, Problem } from "../../lib/ui.js";
import { t } from "../../lib/words.js";

/** @param {{session: any, place: any}} props */
export default function Entrance({ session, place }) {
  const [known, setKnown] = useState("");
  const [changed, setChanged] = useState(false);
  const { me, ended, again } = session;
  useEffect(() => {
    // The gateway knows of the new password within seconds.
    const timer = changed ? setInterval(again, 500) : 0;
    return () => clearInterval(timer);
  }, [changed]);
  const failed = place.parts[0] === "account" && place.query.failed;
  return html`<${Page} title=${t(me ? "login.choose" : "login.title")} deeds=${html`<${Look} />`}><div class="card narrow">
    ${failed && html`<${Problem} error=${{ code: failed }} />`}
    ${ended && html`<p role="status">${t("login.ended")}</p>`}
    ${me && changed ? html`<p class="soft" aria-busy="true">${t("loading")}</p>`
      : me ? html`<p>${t("login.choose.why")}</p>
        <${NewPassword} email=${me.email} known=${known} label=${t("login.choose")} done=${() => setChanged(true)} />
        <${Button} class="plain" onClick=${leave}>${t("logout")}<//>`
      : html`<${Login} onIn=${(/** @type {string} */ password) => {
        setKnown(password);
        again();
      }} />`}
  </div><//>`;
}

/** A login; of whoever has logged in already, once more with the same address. @param {{email?: string, onIn: (password: string) => void}} props */
export function Login({ email: given, onIn }) {
  const [email, setEmail] = useState(given ?? "");
  const [password, setPassword] = useState("");
  const [code, setCode] = useState("");
  const [pending, setPending] = useState(/** @type {string | null} */ (null));
  const [forgets, setForgets] = useState(false);

  const enter = async () => {
    if (!pending) return send("POST", "/auth/login", { email, password, session: "cookie" });
    try {
      return await send("POST", "/auth/login/code", { pending_token: pending, code: code.trim() });
    } catch (error) {
      if (!(error instanceof ApiError) || error.code !== "invalid_credential") throw error;
      throw new ApiError(error.status, "wrong_code", error.message, [], error.requestId);
    }
  };
  const entered = (/** @type {any} */ made) => {
    setPending(made.pending_token);
    if (made.pending_token === null) onIn(password);
  };

  if (forgets) return html`<${Forgotten} email=${email} onBack=${() => setForgets(false)} />`;
  return html`<${Form} key=${pending === null ? "password" : "code"} does=${enter} done=${entered} label=${t("login.do")}>
      ${pending
        ? html`<${Field} label=${t("login.code")} hint=${t("login.code.hint")} value=${code} required autofocus minlength="6" maxlength="40"
            autocomplete="one-time-code" autocapitalize="none" spellcheck=${false} onInput=${(/** @type {any} */ event) => setCode(event.target.value)} />`
        : html`<${Field} label=${t("login.email")} type="email" value=${email} required readonly=${given !== undefined} autocomplete="username"
            onInput=${(/** @type {any} */ event) => setEmail(event.target.value)} />
          <${Field} label=${t("login.password")} type="password" value=${password} required autofocus=${given !== undefined} autocomplete="current-password"
            onInput=${(/** @type {any} */ event) => setPassword(event.target.value)} />`}
    <//>
    ${pending
      ? html`<${Button} class="plain" onClick=${() => setPending(null)}>${t("login.restart")}<//>`
      : html`<${ByProvider} /><${Button} class="plain" onClick=${() => setForgets(true)}>${t("login.forgot")}<//>
        <p class="soft">${t("login.help")}</p>`}`;
}

/** @param {{email: string, onBack: () => void}} props */
function Forgotten({ email: typed, onBack }) {
  const [email, setEmail] = useState(typed);
  const [sent, setSent] = useState(false);
  return html`${sent
    ? html`<p role="status">${t("login.forgot.sent")}</p>`
    : html`<${Form} label=${t("login.forgot.send")} done=${() => setSent(true)} does=${() => send("POST", "/auth/forgot", { email })}
        request=${() => ["POST", "/auth/forgot", { email }]}>
      <${Field} label=${t("login.email")} type="email" value=${email} required autofocus autocomplete="username"
        onInput=${(/** @type {any} */ event) => setEmail(event.target.value)} />
    <//>`}
    <${Button} class="plain" onClick=${onBack}>${t("login.restart")}<//>`;
}

/** A button to sign in at the provider, where there is one. @param {{invitation?: string, children?: any}} props */
export function ByProvider({ invitation, children }) {
  const [name, setName] = useState(/** @type {string | null} */ (null));
  const deed = useDeed();
  useEffect(() => {
    read("/auth/oidc").then((provider) => setName(provider.name), () => {});
  }, []);
  if (name === null) return null;
  const begin = () => send("POST", "/auth/oidc/start", { next: thisPage(invitation ? "#/" : location.hash), ...(invitation && { invitation }) });
  return html`${children}<${Problem} error=${deed.error} />
    <${Button} busy=${deed.busy} onClick=${() => deed.run(async () => goThere(await begin()))}>${t("login.provider", { name })}<//>`;
}

/** The console's page with this fragment, to come back to. @param {string} fragment */
export const thisPage = (fragment) => `${location.pathname}${fragment.includes("failed=") ? "#/" : fragment}`.slice(0, 500);

/** @param {{address: string}} begun */
export function goThere(begun) {
  location.assign(begun.address);
}
