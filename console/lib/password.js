// A new password: of one's own, or by a link.
import { html, useState } from "../vendor/preact.js";
import { ApiError, send } from "./api.js";
import { Field, Form } from "./ui.js";
import { t } from "./words.js";

/** For whom a password manager keeps what is typed beside it. @param {{email?: string}} props */
const For = ({ email }) => email && html`<div class="hidden"><input type="text" autocomplete="username" value=${email} readonly tabindex="-1" aria-hidden="true" /></div>`;

/** A deed by a link, with words for one that is dead. @param {string} target @param {Record<string, string>} body */
export async function byLink(target, body) {
  try {
    return await send("POST", target, body);
  } catch (error) {
    if (error instanceof ApiError && error.of("token")) throw new ApiError(error.status, "dead_link", "", [], error.requestId);
    throw error;
  }
}

/**
 * Another password in the place of the present one, or by the `token` of a link in the place of any.
 * @param {{email?: string, known?: string, token?: string, label?: string, done: () => void}} props known: the present one, if it was just typed
 */
export function NewPassword({ email, known = "", token, label = t("save"), done }) {
  const [current, setCurrent] = useState("");
  const [next, setNext] = useState("");
  const [shown, setShown] = useState(false);
  const does = () => (token === undefined ? send("PUT", "/auth/password", { current: current || known, new: next }) : byLink("/auth/reset", { token, password: next }));
  /** @type {() => [string, string, unknown]} */
  const request = () => (token === undefined ? ["PUT", "/auth/password", { current: "…", new: "…" }] : ["POST", "/auth/reset", { token: "…", password: "…" }]);
  const type = shown ? "text" : "password";
  return html`<${Form} label=${label} done=${done} does=${does} request=${request}>
    ${(/** @type {any} */ error) => html`<${For} email=${email} />
      ${token === undefined && !known && html`<${Field} label=${t("account.password.current")} type="password" autocomplete="current-password" required
        value=${current} error=${error?.of?.("current")} onInput=${(/** @type {any} */ event) => setCurrent(event.target.value)} />`}
      <${Field} label=${t("account.password.new")} hint=${t("account.password.rule")} type=${type} autocomplete="new-password" required minlength="15"
        maxlength="128" value=${next} error=${error?.of?.("new") ?? error?.of?.("password")} onInput=${(/** @type {any} */ event) => setNext(event.target.value)} />
      <label class="check"><input type="checkbox" checked=${shown} onChange=${() => setShown(!shown)} /> ${t("account.password.show")}</label>`}
  <//>`;
}
