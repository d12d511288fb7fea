// A list that grows page by page, and whose rows stay where they are until its reader wants the new ones.
import { html, useRef, useState } from "../vendor/preact.js";
import { read } from "./api.js";
import { useDeed, useLive } from "./live.js";
import { Button, Problem, Table } from "./ui.js";
import { number, t } from "./words.js";

const PAGE = 50;

/**
 * The first page of a list, and those after it once they are asked for: by its `next`, or where it has none by how many
 * rows are there. What is read again every `seconds` changes rows in their places; `waiting` is how many are new, and
 * `moved` whether any came, went or changed places. `again` shows the list as it is now, as many rows of it.
 * @param {string} target @param {string} name the field with the rows
 * @param {{query?: Record<string, unknown>, seconds?: number}} [options]
 */
export function useList(target, name, { query = {}, seconds = 0 } = {}) {
  const asked = { limit: PAGE, ...query };
  const first = useLive(target, { query: asked, seconds });
  const deed = useDeed();
  const [, show] = useState({});
  const key = JSON.stringify([target, query]);
  const held = useRef(/** @type {any} */ ({}));
  if (held.current.key !== key) {
    // Another filter: the rows of the last one stay until it has its own.
    const before = held.current.target === target ? held.current.shown : null;
    held.current = { key, target, rows: [], page: null, seen: null, waiting: 0, moved: false, before };
  }
  const list = held.current;
  if (first.data !== null && first.data !== list.seen) take(list, first.data, first.data[name]);
  const isOld = list.page === null && list.before && !first.error;
  list.shown = isOld ? list.before : { page: list.page, rows: list.rows, latest: list.latest };

  const grow = async (/** @type {any} */ into) => {
    const page = await read(target, { ...asked, ...(into.page !== null && ("next" in into.page ? { after: into.page.next } : { offset: into.rows.length })) });
    into.rows = unique([...into.rows, ...page[name]]);
    into.page = into.latest = page;
  };
  const load = () => deed.run(() => grow(list));
  const reload = () => deed.run(async () => {
    const fresh = { ...list, rows: /** @type {any[]} */ ([]), page: null, waiting: 0, moved: false };
    do await grow(fresh);
    while (fresh.rows.length < list.rows.length && hasMore(fresh));
    if (held.current === list) held.current = { ...fresh, seen: list.seen };
    show({});
  });
  return {
    ...first, data: list.shown.page, rows: list.shown.rows, total: total(list.shown.latest), waiting: list.waiting, moved: list.moved, hasMore: !isOld && hasMore(list), load,
    again: () => (first.error ? first.again() : reload()), busy: deed.busy, loadError: deed.error,
  };
}

/** Put what the first page says now into the rows that are shown. @param {any} list @param {any} page @param {any[]} rows */
function take(list, page, rows) {
  list.seen = list.latest = page;
  if (list.page === null) {
    Object.assign(list, { page, rows: unique(rows) });
    return;
  }
  const now = new Map(rows.map((row) => [idOf(row), row]));
  const before = list.rows.slice(0, rows.length).map(idOf);
  list.rows = list.rows.map((/** @type {any} */ row) => now.get(idOf(row)) ?? row);
  const shown = new Set(list.rows.map(idOf));
  list.waiting = rows.filter((row) => !shown.has(idOf(row))).length;
  list.moved = rows.length < Math.min(list.rows.length, PAGE) || rows.some((row, at) => idOf(row) !== before[at]);
}

/** @param {any} list */
function hasMore({ page, rows }) {
  return page !== null && ("next" in page ? page.next !== null : rows.length < page.total);
}

/** What came in since the first page was read shifts the next one. @param {any[]} rows */
function unique(rows) {
  return [...new Map(rows.map((row) => [idOf(row), row])).values()];
}

/** Somebody's membership has the id of the user, a type of tasks its name. @param {any} row */
const idOf = (row) => row.id ?? row.user_id ?? row.name;

/** @param {any} page */
function total(page) {
  if (!page || page.total == null) return "";
  return page.total_is_exact === false ? `${number(page.total)}+` : number(page.total);
}

/** A list as a table with a button for more. What `below` holds stays in sight. @param {any} props */
export function ListTable({ list, caption, columns, empty, below }) {
  if (list.data === null) return null;
  return html`<${Table} caption=${caption} columns=${columns} rows=${list.rows} id=${idOf} empty=${empty} />
    <p class="soft" role="status">${list.rows.length === 0 ? "" : list.total === "" ? number(list.rows.length) : t("list.shown", { shown: list.rows.length, total: list.total })}</p>
    <${Problem} error=${list.loadError} />
    ${list.hasMore && html`<${Button} busy=${list.busy} onClick=${list.load}>${t("list.more")}<//>`}
    ${(list.moved || below) && html`<div class="below">
      ${list.moved && html`<${Button} class="main" busy=${list.busy} onClick=${list.again}>${list.waiting ? t("list.new", { count: list.waiting }) : t("list.moved")}<//>`}${below}</div>`}`;
}
