// The board of a site: how many items there are by state, contractor and location, each opening the list of them.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { go, refine } from "../../lib/router.js";
import { Button, Choice, Field, Link, Problem, Table } from "../../lib/ui.js";
import { number, t, word } from "../../lib/words.js";
import { employers, places, usePeople } from "../items/choices.js";
import { ItemList } from "../items/list.js";
import { inspects } from "../items/roles.js";
import { Tally, useTally } from "../items/tally.js";

const STATES = ["open", "in_progress", "returned", "ready", "disputed", "closed", "void", "draft"];
/** What customers are told of a state. */
const TOLD = ["accepted", "in_work", "done"];
const SORTS = ["-created_at", "due_on", "-due_on", "priority", "number", "-number"];
/** Which filters the API takes of the address, those that are shown at once first. */
const FILTERS = ["q", "state", "overdue", "organisation", "assignee_id", "location_id", "kind", "type", "severity", "priority", "due_from", "due_to", "sort", "counted_in"];
const LATER = ["kind", "type", "severity", "priority", "due_from", "due_to"];
const isWide = () => matchMedia("(width >= 40rem)").matches;

/** @param {any} props */
export function Board({ site, place, session, isCustomer }) {
  /** @type {Record<string, string>} */
  const asked = Object.fromEntries(FILTERS.filter((name) => place.query[name]).map((name) => [name, place.query[name]]));
  const [turn, setTurn] = useState(0);
  // Drafts are their authors'.
  const states = isCustomer ? TOLD : inspects(site, session) ? STATES : STATES.filter((state) => state !== "draft");
  return html`<div class="stack">
    <${States} site=${site} states=${states} place=${place} turn=${turn} />
    ${!isCustomer && html`<div class="halves">
      <${Counts} turn=${turn} title=${t("site.by_contractor")} report="contractors" site=${site} figures=${["open", "overdue", "awaiting_us"]} />
      <${Counts} turn=${turn} title=${t("site.by_assignee")} report="contractors" by="assignee" filter="assignee_id" site=${site} figures=${["open", "overdue", "awaiting_us"]} />
      <${Counts} turn=${turn} title=${t("site.by_location")} report="counts" by="location" filter="location_id" site=${site} figures=${["items", "open", "overdue"]} />
    </div>`}
    <section aria-labelledby="board"><h2 id="board">${t("nav.items")}</h2>
      <${Filters} site=${site} asked=${asked} states=${states} isCustomer=${isCustomer} />
      <${ItemList} query=${{ site_id: site.id, ...asked }} session=${session} changed=${() => setTurn(turn + 1)} /></section>
  </div>`;
}

/** @param {{site: any, states: string[], place: any, turn: number}} props */
function States({ site, states, place, turn }) {
  const chosen = place.query.state;
  const counts = useTally(Object.fromEntries(states.map((state) => [state, { site_id: site.id, state }])), turn);
  return html`<${Tally} label=${t("item.state")} names=${states} words=${(/** @type {string} */ state) => word("state", state)} counts=${counts} chosen=${chosen}
    onChoose=${(/** @type {string} */ state) => go(place.path, { ...place.query, state: state === chosen ? "" : state, counted_in: "" })} />`;
}

/** What stands for no organisation, person or location. @param {string | null} by */
const none = (by) => (by === "location" ? "–" : t("site.nobody"));

/** The numbers of a report, each opening the items that it counts. @param {any} props */
function Counts({ turn, title, report, by = "organisation", filter = "organisation", site, figures }) {
  const [isOpen, setOpen] = useState(isWide);
  const live = useLive(isOpen ? `/reports/${report}` : null, { query: { site_id: site.id, by } });
  useEffect(() => {
    if (turn > 0) live.again();
  }, [turn]);
  // Only then, so that Back leads to where the figure is.
  const show = () => setTimeout(() => document.getElementById("board")?.scrollIntoView());
  const figure = (/** @type {string} */ words, /** @type {Record<string, unknown>} */ query) => html`<${Link} class="figure" to=${`/sites/${site.id}`} query=${query} onClick=${show}>${words}<//>`;
  const count = (/** @type {any} */ value) => figure(number(value.count), { counted_in: new URLSearchParams(value.items.split("?")[1]).get("counted_in") });
  // A location stands below what holds it.
  const sorted = (/** @type {any[]} */ rows) => (by === "location" ? rows.toSorted((one, other) => one.name.localeCompare(other.name)) : rows);
  const name = (/** @type {any} */ row) => (row.key ? figure(row.name, { [filter]: row.key }) : row.key === null ? t("report.total") : none(by));
  return html`<details open=${isOpen} onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary><h2>${title}</h2></summary>
    ${report === "counts" && html`<p class="soft">${t("report.counts.what")}</p>`}
    <${Problem} error=${live.error} />
    ${live.data && html`<${Table} caption=${title} rows=${[...sorted(live.data.rows), live.data.total]} id=${(/** @type {any} */ row) => row.key ?? "total"}
      columns=${[[word("by", by), name, "name"], ...figures.map((/** @type {string} */ one) => [word("figure", one), (/** @type {any} */ row) => count(row[one]), "number brief when"])]} />`}</details>`;
}

/** @param {{site: any, asked: Record<string, string>, states: string[], isCustomer: boolean}} props */
function Filters({ site, asked, states, isCustomer }) {
  const people = usePeople(isCustomer ? null : site.id);
  const locations = useLive(path`/sites/${site.id}/locations`);
  // On a phone the list would begin below all of them.
  const [wide] = useState(isWide);
  const [isOpen, setOpen] = useState(LATER.some((name) => asked[name]));
  const types = useLive(isOpen && !isCustomer ? "/reports/counts" : null, { query: { site_id: site.id, by: "type" } });
  const set = (/** @type {string} */ name) => (/** @type {any} */ event) => refine({ [name]: event?.target ? event.target.value : event });
  const choice = (/** @type {string} */ name, /** @type {string} */ label, /** @type {[string, string][]} */ options) => html`
    <${Choice} label=${label} value=${asked[name] ?? ""} onChange=${set(name)} options=${[["", t("any")], ...options]} />`;
  const words = (/** @type {string} */ kind, /** @type {string[]} */ values) => values.map((one) => /** @type {[string, string]} */ ([one, word(kind, one)]));
  /** Which figure's items are shown. @param {string} figure */
  const counted = (figure) => {
    const asked = new URLSearchParams(figure.split("?")[1]);
    const key = asked.get("key");
    const name = people.find((one) => one.user_id === key)?.name ?? locations.data?.locations.find((/** @type {any} */ one) => one.id === key)?.name ?? key;
    return html`${t("site.counted")} <b>${[name === "" ? none(asked.get("by")) : name, word("figure", asked.get("figure"))].filter(Boolean).join(": ")}</b>`;
  };
  const workers = people.filter((one) => ["engineer", "manager", "contractor"].includes(one.role));
  const sorts = isCustomer ? SORTS.slice(0, 3) : SORTS;
  const often = html`
      ${choice("state", t("item.state"), words("state", states))}
      ${!isCustomer && choice("overdue", t("item.overdue"), [["true", t("yes")], ["false", t("no")]])}
      ${!isCustomer && employers(people).length > 0 && choice("organisation", t("item.organisation"), employers(people).map((one) => [one, one]))}
      ${!isCustomer && choice("assignee_id", t("item.assignee"), workers.map((one) => [one.user_id, one.name]))}
      ${choice("location_id", t("item.location"), places(locations.data?.locations ?? []))}
      <${Choice} label=${t("site.sort")} value=${asked.sort ?? SORTS[0]} onChange=${set("sort")} options=${sorts.map((one) => [one, t(`sort.${one}`)])} />`;
  return html`<div class="filters">
      <${Field} label=${isCustomer ? t("item.search.title") : t("item.search")} type="search" value=${asked.q ?? ""} onInput=${set("q")} />
      ${wide && often}
    </div>
    ${!(isCustomer && wide) && html`<details open=${isOpen} onToggle=${(/** @type {any} */ event) => setOpen(event.target.open)}><summary>${t("site.filters")}</summary><div class="filters">
      ${!wide && often}${!isCustomer && html`
      ${choice("kind", t("item.kind"), words("kind", ["defect", "task", "customer_remark"]))}
      ${choice("type", t("item.type"), (types.data?.rows ?? []).filter((/** @type {any} */ row) => row.key).map((/** @type {any} */ row) => [row.key, row.name]))}
      ${choice("severity", word("field", "severity"), words("severity", ["critical", "significant", "minor"]))}
      ${choice("priority", t("item.priority"), ["1", "2", "3", "4"].map((one) => [one, one]))}
      <${Field} label=${t("site.due_from")} type="date" value=${asked.due_from ?? ""} onChange=${set("due_from")} />
      <${Field} label=${t("site.due_to")} type="date" value=${asked.due_to ?? ""} onChange=${set("due_to")} />`}
    </div></details>`}
    ${Object.keys(asked).some((name) => name !== "sort") && html`<p>${asked.counted_in && counted(asked.counted_in)} <${Button}
      onClick=${() => refine(Object.fromEntries(FILTERS.filter((name) => name !== "sort").map((name) => [name, ""])))}>${t("site.all")}<//></p>`}`;
}
