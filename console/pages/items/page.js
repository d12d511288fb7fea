// My work: what is assigned to whoever reads, what is late first; one item is in item.js, a new one in new.js.
import { html } from "../../vendor/preact.js";
import { refine } from "../../lib/router.js";
import { Choice, Link, Page } from "../../lib/ui.js";
import { t } from "../../lib/words.js";
import { Item } from "./item.js";
import { ItemList } from "./list.js";
import { NewItem } from "./new.js";

/** What each choice asks the API for. @type {Record<string, Record<string, unknown>>} */
const VIEWS = {
  mine: { mine: true, state: "open,in_progress,returned,disputed", sort: "due_on" },
  overdue: { overdue: true, sort: "due_on" },
  ready: { state: "ready", sort: "due_on" },
  all: {},
};

/** @param {any} props */
export default function Work({ place, session }) {
  if (place.parts[1] === "new") return html`<${NewItem} siteId=${place.query.site_id} />`;
  if (place.parts[1]) return html`<${Item} key=${place.parts[1]} id=${place.parts[1]} session=${session} />`;
  const chosen = place.query.view in VIEWS ? place.query.view : session.me.id === null ? "overdue" : "mine";
  return html`<${Page} title=${t("nav.items")} deeds=${html`<${Link} to="/items/new" class="button main">${t("item.new")}<//>`}>
    <div class="filters"><${Choice} label=${t("work.view")} value=${chosen} onChange=${(/** @type {string} */ view) => refine({ view })}
      options=${Object.keys(VIEWS).map((view) => [view, t(`work.view.${view}`)])} /></div>
    <${ItemList} query=${VIEWS[chosen]} />
  <//>`;
}
