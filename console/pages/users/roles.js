// What somebody is in the whole system.
import { html, useState } from "../../vendor/preact.js";
import { path, send } from "../../lib/api.js";
import { Form } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";

/** Those that mean something. */
export const ROLES = ["user", "auditor", "admin"];

/** @param {{roles: string[], onChange: (roles: string[]) => void}} props */
export function RoleBoxes({ roles, onChange }) {
  const toggle = (/** @type {string} */ role) => onChange(roles.includes(role) ? roles.filter((one) => one !== role) : [...roles, role]);
  return html`<fieldset><legend>${t("user.roles")}</legend>${ROLES.map((role) => html`<label class="check" key=${role}>
    <input type="checkbox" checked=${roles.includes(role)} onChange=${() => toggle(role)} /> <span>${word("role", role)} <span class="soft">${t(`role.${role}.what`)}</span></span></label>`)}</fieldset>`;
}

/** @param {{user: any, done: () => void}} props */
export function Roles({ user, done }) {
  const [roles, setRoles] = useState(/** @type {string[]} */ (user.roles));
  const target = path`/users/${user.id}`;
  return html`<p>${t("user.roles.what")}</p>
    <${Form} label=${t("save")} done=${done} does=${() => send("PUT", target, { roles })} request=${() => ["PUT", target, { roles }]}>
      <${RoleBoxes} roles=${roles} onChange=${setRoles} />
    <//>`;
}
