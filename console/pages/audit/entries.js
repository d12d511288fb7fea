// Entries of the audit as a table.
import { html } from "../../vendor/preact.js";
import { Link } from "../../lib/ui.js";
import { t, time, word } from "../../lib/words.js";

/** Everything that is written there; what a program of one's own reads may be newer. */
export const ACTIONS = [
  "admin.created", "circuit.forced", "factor.confirmed", "factor.removed", "factors.removed", "identity.linked", "identity.removed", "instance.closed", "key.created",
  "key.deleted", "link.made", "request.refused", "session.began", "session.ended", "session.expired", "session.token_reused", "sessions.ended",
  "user.created", "user.deleted", "user.disabled", "user.email_changed", "user.enabled", "user.invitation_taken", "user.name_changed", "user.password_changed",
  "user.password_reset", "user.roles_changed",
];

/** @param {{id: string | null, name: string | null}} props */
function Somebody({ id, name }) {
  if (id === null) return "";
  return name === null ? html`<code title=${t("audit.gone")}>${id}</code>` : html`<${Link} to=${`/users/${id}`}>${name}<//>`;
}

/** What an entry adds, as it is kept. @param {{of: Record<string, any>}} props */
function Details({ of }) {
  const said = (/** @type {any} */ value) => (value?.before ? `${value.before.join(", ")} → ${value.after.join(", ")}` : typeof value === "object" ? JSON.stringify(value) : String(value));
  return Object.entries(of ?? {}).map(([name, value]) => html`<div key=${name}><span class="soft">${word("audit.detail", name) === name ? name : word("audit.detail", name)}:</span> ${said(value)}</div>`);
}

/** Columns of a table of entries. @type {[string, (row: any) => any][]} */
export const COLUMNS = [
  [t("audit.when"), (row) => html`<time datetime=${row.happened_at} title=${row.happened_at}>${time(row.happened_at)}</time>`],
  [t("audit.action"), (row) => word("audit", row.action)],
  [t("audit.actor"), (row) => html`<${Somebody} id=${row.actor} name=${row.actor_name} />`],
  [t("audit.subject"), (row) => html`<${Somebody} id=${row.subject} name=${row.subject_name} />`],
  [t("account.address"), (row) => row.address],
  [t("audit.details"), (row) => html`<${Details} of=${row.details} />`],
];
