// What takes a login of the last five minutes.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { Login } from "../login/page.js";
import { Form } from "../../lib/ui.js";
import { t } from "../../lib/words.js";

const STALE = {};

/** A form that asks for the login first where the last one is too old. @param {any} props those of a Form, and the session */
export function Fresh({ session, does, done, ...rest }) {
  const [stale, setStale] = useState(false);
  const tried = async () => {
    try {
      return await does();
    } catch (error) {
      if (/** @type {any} */ (error).code !== "login_not_fresh") throw error;
      setStale(true);
      return STALE;
    }
  };
  const before = session.me.session_id;
  const loggedIn = async () => {
    // The new login takes the place of the one before.
    await send("DELETE", path`/auth/sessions/${before}`).catch(() => {});
    setStale(false);
    session.again();
  };
  return html`<div hidden=${stale}><${Form} ...${rest} does=${tried} done=${(/** @type {any} */ made) => made !== STALE && done(made)} /></div>
    ${stale && html`<p role="status">${t("account.fresh")}</p><${Login} email=${session.me.email} onIn=${loggedIn} />`}`;
}
