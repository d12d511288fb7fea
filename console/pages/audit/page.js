// The audit: who did what to whose account, and what was refused.
import { html } from "../../vendor/preact.js";
import { ListTable, useList } from "../../lib/list.js";
import { PersonFilter } from "../../lib/people.js";
import { refine } from "../../lib/router.js";
import { Button, Choice, Field, Page } from "../../lib/ui.js";
import { dayBegins, t, word } from "../../lib/words.js";
import { ACTIONS, COLUMNS } from "./entries.js";

/** @param {any} props */
export default function AuditLog({ place }) {
  const { actor = "", subject = "", action = "", from = "", to = "" } = place.query;
  const list = useList("/audit", "entries", { query: { actor, subject, action, happened_from: dayBegins(from), happened_to: dayBegins(to, 1) } });
  return html`<${Page} title=${t("nav.audit")} live=${list}>
    <div class="filters">
      <${Choice} label=${t("audit.action")} value=${action} onChange=${(/** @type {string} */ chosen) => refine({ action: chosen })}
        options=${[["", t("any")], ...ACTIONS.map((one) => [one, word("audit", one)])]} />
      <${PersonFilter} label=${t("audit.actor")} name="actor" id=${actor} />
      <${PersonFilter} label=${t("audit.subject")} name="subject" id=${subject} />
      <${Field} label=${t("audit.from")} type="date" value=${from} max=${to} onChange=${(/** @type {any} */ event) => refine({ from: event.target.value })} />
      <${Field} label=${t("audit.to")} type="date" value=${to} min=${from} onChange=${(/** @type {any} */ event) => refine({ to: event.target.value })} />
      <${Button} onClick=${list.again}>${t("audit.again")}<//>
    </div>
    <${ListTable} list=${list} caption=${t("nav.audit")} columns=${COLUMNS} />
  <//>`;
}
