// What a mailed link opens: a new password, or the proof of an address. Its token stands after the #, and only until it is read.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { ByProvider } from "../login/page.js";
import { Look } from "../../lib/look.js";
import { byLink, NewPassword } from "../../lib/password.js";
import { link } from "../../lib/router.js";
import { Button, Form, Page } from "../../lib/ui.js";
import { t } from "../../lib/words.js";

/** @param {any} props */
export default function Linked({ place, session }) {
  const [, purpose, given] = place.parts;
  const [token, setToken] = useState(/** @type {string | undefined} */ (given));
  const [done, setDone] = useState(/** @type {any} */ (null));
  useEffect(() => {
    if (given === undefined) return;
    setToken(given);
    setDone(null);
    // Neither the history nor whoever looks over a shoulder needs it.
    history.replaceState(null, "", link(`/link/${purpose}`));
  }, [given]);
  const leave = () => {
    location.hash = "";
    session.again();
  };
  const title = t(purpose === "email" ? "link.email" : "link.password");
  return html`<${Page} title=${title} deeds=${html`<${Look} />`}><div class="card narrow">
    ${done ? html`<p role="status">${purpose === "email" ? t("link.email.done", { email: done.email }) : t("link.password.done")}</p>
        <${Button} class="main" onClick=${leave}>${t("link.on")}<//>`
      : token === undefined ? html`<p>${t("link.again")}</p><${Button} onClick=${leave}>${t("link.on")}<//>`
      : purpose === "email" ? html`<p>${t("link.email.what")}</p>
        <${Form} label=${t("link.email")} done=${setDone} does=${() => byLink("/auth/email/confirm", { token })} request=${() => ["POST", "/auth/email/confirm", { token: "…" }]} />`
      : html`<p>${t("link.password.what")}</p><${NewPassword} token=${token} label=${t("link.password")} done=${setDone} />
        ${purpose === "invitation" && html`<${ByProvider} invitation=${token}><p>${t("link.provider")}</p><//>`}`}
  </div><//>`;
}
