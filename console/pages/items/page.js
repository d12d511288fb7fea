// My work: what waits for whoever reads, with how much of it there is; one item is in item.js, a new one in new.js.
import { html, useMemo, useRef, useState } from "../../vendor/preact.js";
import { later } from "../../lib/later.js";
import { useLive } from "../../lib/live.js";
import { PersonFilter } from "../../lib/people.js";
import { go, refine } from "../../lib/router.js";
import { Field, Link, Page } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { ItemList } from "./list.js";
import { kindsFor } from "./roles.js";
import { Tally, useTally } from "./tally.js";

const Item = later(() => import("./item.js"));
const NewItem = later(() => import("./new.js"));

/** What each choice asks the API for. @param {any} session @returns {Record<string, Record<string, unknown>>} */
const queries = (session) => ({
  mine: { mine: true, state: "open,in_progress,returned,disputed", sort: "due_on" },
  remarks: { mine: true },
  overdue: { overdue: true, sort: "due_on" },
  unassigned: { unassigned: true, state: "open,in_progress,returned,disputed", sort: "due_on" },
  ready: { state: "ready", sort: "due_on" },
  disputed: { state: "disputed", sort: "due_on" },
  registered: { registered_by: session.me.id },
  drafts: { state: "draft" },
  all: {},
});

/** The choices for somebody with these roles on their sites, what concerns them most first. @param {Set<string | null>} roles @param {any} session */
function viewsFor(roles, session) {
  if (session.inspects) return session.me.id === null ? ["overdue", "ready", "all"] : ["overdue", "ready", "all", "mine"];
  if (roles.size === 1 && roles.has("customer")) return ["all", "remarks"];
  if (roles.has("manager")) return ["overdue", "unassigned", "ready", "disputed", "mine", "registered", "drafts", "all"];
  if (roles.has("engineer")) return ["ready", "mine", "overdue", "registered", "drafts", "all"];
  return roles.size === 1 && roles.has("executive") ? ["overdue", "ready", "all"] : ["mine", "overdue", "ready", "all"];
}

/** @param {any} props */
export default function Work({ place, session }) {
  if (place.parts[1] === "new") return html`<${NewItem} title=${t("item.new")} siteId=${place.query.site_id} session=${session} />`;
  if (place.parts[1]) return html`<${Item} title=${t("nav.items")} key=${place.parts[1]} id=${place.parts[1]} session=${session} />`;
  return html`<${Mine} place=${place} session=${session} />`;
}

/** @param {any} props */
function Mine({ place, session }) {
  const live = useLive("/sites", { query: { limit: 100 } });
  const sites = live.data?.sites ?? [];
  const views = viewsFor(new Set(sites.map((/** @type {any} */ site) => site.role)), session);
  const [turn, setTurn] = useState(0);
  const asked = queries(session);
  const counts = useTally(Object.fromEntries(live.data ? views.map((view) => [view, asked[view]]) : []), turn);
  // To begin with, the first where there is something.
  const first = useRef(/** @type {string | null} */ (null));
  if (first.current === null && live.data && views.every((view) => view in counts)) first.current = views.find((view) => counts[view].count) ?? views[0];
  const { q, assignee_id } = place.query;
  const chosen = views.includes(place.query.view) ? place.query.view : first.current;
  // Each count that comes in draws the counts alone.
  const list = useMemo(() => chosen && html`<div key=${place.query.view ? "asked" : "first"}><${ItemList} query=${{ ...asked[chosen], q, assignee_id }} session=${session} changed=${() => setTurn((before) => before + 1)} /></div>`,
    [chosen, place.query.view, q, assignee_id, session]);
  const isCustomer = views.includes("remarks");
  const registers = sites.some((/** @type {any} */ site) => kindsFor(site, session).length > 0);
  return html`<${Page} title=${t("nav.items")} live=${live} deeds=${registers && html`<${Link} to="/items/new" class="button main">${t("item.new")}<//>`}>
    ${sites.length === 0 && !session.inspects ? html`<p>${t("sites.none")}</p>` : html`<div class="stack">
      <${Tally} label=${t("work.view")} names=${views} words=${(/** @type {string} */ view) => t(`work.view.${view}`)} counts=${counts} chosen=${chosen} onChoose=${(/** @type {string} */ view) => go(place.path, { ...place.query, view })} />
      <div class="filters"><${Field} label=${t(isCustomer ? "item.search.title" : "item.search")} type="search" value=${q ?? ""} onInput=${(/** @type {any} */ event) => refine({ q: event.target.value })} />
        ${assignee_id && html`<${PersonFilter} label=${t("item.assignee")} name="assignee_id" id=${assignee_id} />`}</div>
      ${list}
    </div>`}
  <//>`;
}
