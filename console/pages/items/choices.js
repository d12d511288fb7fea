// What forms about work items choose from: a site's people, locations and items; and which version their reader saw.
import { html, useEffect, useState } from "../../vendor/preact.js";
import { ask, path, read, send } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";
import { Choice, Field } from "../../lib/ui.js";
import { t, time, word } from "../../lib/words.js";

/** All people of a site; none while they are read. @param {string | null} site @returns {any[]} */
export function usePeople(site) {
  const [people, setPeople] = useState(/** @type {any} */ ({ site: null, rows: [] }));
  useEffect(() => {
    let wanted = site !== null;
    const load = async () => {
      /** @type {any[]} */
      const rows = [];
      let page;
      do {
        page = await read(path`/sites/${site}/members`, { limit: 100, offset: rows.length });
        rows.push(...page.members);
      } while (page.members.length > 0 && rows.length < page.total && wanted);
      if (wanted) setPeople({ site, rows });
    };
    if (wanted) load().catch(() => {});
    return () => {
      wanted = false;
    };
  }, [site]);
  return people.site === site ? people.rows : [];
}

/** The organisations that people work for. @param {any[]} people @returns {string[]} */
export function employers(people) {
  return [...new Set(people.map((one) => one.organisation).filter(Boolean))].sort();
}

/** The locations of a site as choices, each below what holds it, indented. @param {any[]} locations @returns {[string, string][]} */
export function places(locations) {
  return branches(locations).map(({ location, depth }) => [location.id, `${"\u2003".repeat(depth)}${location.name}`]);
}

/** One of a site's locations, or none; a closed list shows its name alone. @param {any} props */
export function LocationChoice({ locations, ...props }) {
  const lies = pathsOf(locations).get(props.value);
  return html`<${Choice} ...${props} hint=${lies?.includes(" / ") && lies} options=${[["", "–"], ...places(locations)]} />`;
}

/** Where locations lie, by their ids: "Hall B / Ground floor". @param {any[]} locations @returns {Map<string, string>} */
export function pathsOf(locations) {
  const known = new Map(locations.map((one) => [one.id, one]));
  /** @type {(one: any) => string} */
  const full = (one) => (known.has(one.parent_id) ? `${full(known.get(one.parent_id))} / ${one.name}` : one.name);
  return new Map(locations.map((one) => [one.id, full(one)]));
}

/** The same of some sites. @param {string[]} sites @returns {Map<string, string>} */
export function usePaths(sites) {
  const [paths, setPaths] = useState(/** @type {Map<string, string>} */ (new Map()));
  useEffect(() => {
    const ending = new AbortController();
    for (const site of sites) {
      read(path`/sites/${site}/locations`, {}, ending.signal).then(({ locations }) => {
        setPaths((before) => new Map([...before, ...pathsOf(locations)]));
      }, () => {});
    }
    return () => ending.abort();
  }, [sites.join()]);
  return paths;
}

/** The tree of a site's locations, each before what it holds. @param {any[]} locations */
export function branches(locations, parent = null, depth = 0) {
  /** @type {{location: any, depth: number}[]} */
  const found = [];
  for (const location of locations) {
    if (location.parent_id === parent) found.push({ location, depth }, ...branches(locations, location.id, depth + 1));
  }
  return found;
}

/** Another work item of a site, by its key or a part of its title. @param {any} props */
export function ItemChoice({ site, value, onChange, label, error }) {
  const [sought, setSought] = useState("");
  const found = useLive(sought.length > 1 ? "/work-items" : null, { query: { site_id: site, q: sought, limit: 20, total: false } });
  const items = found.data?.work_items ?? [];
  return html`<${Field} label=${t("item.search")} type="search" value=${sought} onInput=${(/** @type {any} */ event) => setSought(event.target.value)} />
    <${Choice} label=${label} error=${error} value=${value} onChange=${onChange} options=${[["", sought.length > 1 && items.length === 0 ? t(found.data ? "list.empty" : "loading") : "–"], ...items.map((/** @type {any} */ one) => [one.id, `${one.key} ${one.title}`])]} />`;
}

/**
 * Deeds on the version of an item that was shown when a form was opened; where somebody has changed it meanwhile, the
 * next try is on what is there then.
 * @param {any} item @param {() => void} again @param {string | null} [etag] of an item without a version
 */
export function useSeen(item, again, etag = null) {
  const [tag, setTag] = useState(etag ?? `"${item.version}"`);
  const headers = { "If-Match": tag };
  return {
    headers,
    /** @param {string} method @param {string} target @param {unknown} [body] */
    async send(method, target, body) {
      try {
        return await send(method, target, body, headers);
      } catch (error) {
        const refusal = /** @type {any} */ (error);
        if (refusal.status === 409) again();
        if (refusal.status === 412) {
          // Customers are not told who changed it.
          const told = item.key ? await changesSince(path`/work-items/${item.id}/history`, Number(tag.slice(1, -1))) : [];
          if (told.length > 0) refusal.details = told;
          setTag((await ask(path`/work-items/${item.id}`)).etag ?? tag);
          again();
        }
        throw refusal;
      }
    },
  };
}

/** Who changed what since a version, in the reader's language. @param {string} target @param {number} version */
async function changesSince(target, version) {
  /** @type {{field: string, message: string}[]} */
  const told = [];
  let after = 0;
  do {
    const page = await read(target, { limit: 100, after });
    for (const row of page.history) {
      const message = t("item.changed_by", { name: row.actor.name, role: word("member", row.actor.role), time: time(row.at) });
      const names = [...(row.from_state !== row.to_state ? ["state"] : []), ...Object.keys(row.changes)];
      if (row.version > version) told.push(...names.map((name) => ({ field: word("field", name), message })));
    }
    after = page.next;
  } while (after !== null);
  return told;
}
