// My work: what is assigned to whoever reads, what is late first; one item is in item.js, a new one in new.js.
import { html } from "../../vendor/preact.js";
import { useLive } from "../../lib/live.js";
import { refine } from "../../lib/router.js";
import { Choice, Link, Page } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { Item } from "./item.js";
import { ItemList } from "./list.js";
import { NewItem } from "./new.js";
import { kindsFor } from "./roles.js";

/** What each choice asks the API for. @type {Record<string, Record<string, unknown>>} */
const VIEWS = {
  mine: { mine: true, state: "open,in_progress,returned,disputed", sort: "due_on" },
  remarks: { mine: true },
  overdue: { overdue: true, sort: "due_on" },
  ready: { state: "ready", sort: "due_on" },
  drafts: { state: "draft" },
  all: {},
};

/** The choices for somebody with these roles on their sites, the first to begin with. @param {Set<string | null>} roles @param {any} session */
function viewsFor(roles, session) {
  if (session.inspects) return session.me.id === null ? ["overdue", "ready", "all"] : ["overdue", "ready", "all", "mine"];
  if (roles.size === 1 && roles.has("customer")) return ["all", "remarks"];
  if (roles.size === 1 && roles.has("executive")) return ["overdue", "ready", "all"];
  return ["mine", "overdue", "ready", "drafts", "all"].filter((view) => view !== "drafts" || roles.has("engineer") || roles.has("manager"));
}

/** @param {any} props */
export default function Work({ place, session }) {
  if (place.parts[1] === "new") return html`<${NewItem} siteId=${place.query.site_id} session=${session} />`;
  if (place.parts[1]) return html`<${Item} key=${place.parts[1]} id=${place.parts[1]} session=${session} />`;
  return html`<${Mine} place=${place} session=${session} />`;
}

/** @param {any} props */
function Mine({ place, session }) {
  const live = useLive("/sites", { query: { limit: 100 } });
  const sites = live.data?.sites ?? [];
  const views = viewsFor(new Set(sites.map((/** @type {any} */ site) => site.role)), session);
  const chosen = views.includes(place.query.view) ? place.query.view : views[0];
  const registers = sites.some((/** @type {any} */ site) => kindsFor(site, session).length > 0);
  return html`<${Page} title=${t("nav.items")} live=${live} deeds=${registers && html`<${Link} to="/items/new" class="button main">${t("item.new")}<//>`}>
    <div class="filters"><${Choice} label=${t("work.view")} value=${chosen} onChange=${(/** @type {string} */ view) => refine({ view })}
      options=${views.map((view) => [view, t(`work.view.${view}`)])} /></div>
    <${ItemList} query=${VIEWS[chosen]} session=${session} />
  <//>`;
}
