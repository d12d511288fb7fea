// One site: its board, people, locations, working days and settings.
import { html } from "../../vendor/preact.js";
import { path } from "../../lib/api.js";
import { later } from "../../lib/later.js";
import { useLive } from "../../lib/live.js";
import { Link, Page, Tabs } from "../../lib/ui.js";
import { t, word } from "../../lib/words.js";
import { kindsFor, leads } from "../items/roles.js";
import { Board } from "./board.js";
import { Settings } from "./settings.js";

/** @type {Record<string, any>} */
const TABS = {
  board: Board,
  people: later(() => import("./people.js")),
  locations: later(() => import("./locations.js")),
  calendar: later(() => import("./calendar.js")),
  settings: Settings,
};

/** @param {any} props */
export function Site({ id, place, session }) {
  const live = useLive(path`/sites/${id}`);
  const site = live.data;
  const chosen = place.parts[2] in TABS ? place.parts[2] : "board";
  const isCustomer = site?.role === "customer" && !session.inspects;
  const tabs = Object.keys(TABS).filter((name) => name === "board" || name === "people" || (name === "settings" ? site && leads(site, session) : !isCustomer));
  return html`<${Page} title=${site?.name ?? t("site")} live=${live} deeds=${site && html`
    ${kindsFor(site, session).length > 0 && html`<${Link} class="button main" to="/items/new" query=${{ site_id: id }}>${t("item.new")}<//>`}
    <${Link} class="button" to="/reports" query=${{ site_id: id }}>${t("nav.reports")}<//>`}>
    ${site && html`<p class="soft">${[site.key, site.time_zone, site.role && word("member", site.role)].filter(Boolean).join(" · ")}</p>
    <${Tabs} label=${site.name} of=${tabs.map((name) => ({ to: `/sites/${id}${name === "board" ? "" : `/${name}`}`, words: t(`site.${name}`), isHere: name === chosen }))} />
    <${tabs.includes(chosen) ? TABS[chosen] : Board} key=${chosen} site=${site} place=${place} session=${session} isCustomer=${isCustomer} again=${live.again} />`}
  <//>`;
}
