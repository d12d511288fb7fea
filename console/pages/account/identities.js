// Identities at the sign-in provider, where there is one.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { goThere, thisPage } from "../login/page.js";
import { useLive } from "../../lib/live.js";
import { Deed, Dialog, Moment, Problem, Table } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { Fresh } from "./fresh.js";

/** @param {{session: any}} props */
export function Identities({ session }) {
  const provider = useLive("/auth/oidc");
  const live = useLive("/auth/identities");
  const [asked, setAsked] = useState(/** @type {any} */ (null));
  const close = () => {
    setAsked(null);
    live.again();
  };
  const name = provider.data?.name ?? null;
  const rows = live.data?.identities ?? [];
  if (name === null && rows.length === 0) return null;
  const target = asked?.id && path`/auth/identities/${asked.id}`;
  const body = { next: thisPage("#/account") };
  return html`<section><header class="title"><h2>${t("identity")}</h2>
      ${name !== null && rows.length === 0 && html`<${Deed} onClick=${() => setAsked("new")}>${t("identity.link", { name })}<//>`}</header>
    <${Problem} error=${live.error} />
    <${Table} caption=${t("identity")} rows=${rows} columns=${[
      [t("identity.issuer"), (/** @type {any} */ row) => row.issuer],
      [t("identity.subject"), (/** @type {any} */ row) => row.subject],
      [t("account.since"), (/** @type {any} */ row) => html`<${Moment} at=${row.created_at} />`],
      [t("account.used"), (/** @type {any} */ row) => (row.last_used_at ? html`<${Moment} at=${row.last_used_at} />` : t("account.never"))],
      ["", (/** @type {any} */ row) => html`<${Deed} onClick=${() => setAsked(row)}>${t("identity.unlink")}<//>`],
    ]} />
    <${Dialog} title=${target ? t("identity.unlink") : t("identity.link", { name })} open=${asked !== null} onClose=${close}>
      ${target ? html`<p>${t("identity.unlink.what")}</p>
          <${Fresh} session=${session} danger label=${t("identity.unlink")} does=${() => send("DELETE", target)} done=${close} request=${() => ["DELETE", target]} />`
        : html`<p>${t("identity.link.what", { name })}</p>
          <${Fresh} session=${session} label=${t("identity.link", { name })} does=${() => send("POST", "/auth/oidc/link", body)} done=${goThere} request=${() => ["POST", "/auth/oidc/link", body]} />`}
    <//>
  </section>`;
}
