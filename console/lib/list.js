// A list that grows page by page.
import { html, useEffect, useState } from "../vendor/preact.js";
import { ApiError, read } from "./api.js";
import { useLive } from "./live.js";
import { Button, Problem, Table } from "./ui.js";
import { number, t } from "./words.js";

/**
 * The first page of a list, kept up to date, and those after it once they are asked for: by its `next`, or where it has
 * none by how many rows are there.
 * @param {string} target @param {string} name the field with the rows
 * @param {{query?: Record<string, unknown>, seconds?: number}} [options]
 */
export function useList(target, name, { query = {}, seconds = 0 } = {}) {
  const first = useLive(target, { query: { limit: 50, ...query }, seconds });
  const key = JSON.stringify([target, query]);
  const [more, setMore] = useState(/** @type {any} */ ({ key, rows: [], next: null, error: null, busy: false }));
  useEffect(() => setMore({ key, rows: [], next: null, error: null, busy: false }), [key]);
  const grown = more.key === key && more.rows.length > 0;
  const rows = first.data === null ? [] : unique([...first.data[name], ...(more.key === key ? more.rows : [])]);
  const isKeyed = first.data !== null && "next" in first.data;
  const after = grown ? more.next : first.data?.next;
  const hasMore = isKeyed ? after !== null : rows.length < (first.data?.total ?? 0);

  const load = async () => {
    setMore({ ...more, key, busy: true, error: null });
    try {
      const page = await read(target, { limit: 50, ...query, ...(isKeyed ? { after } : { offset: rows.length }) });
      setMore({ key, rows: [...more.rows, ...page[name]], next: page.next, error: null, busy: false });
    } catch (error) {
      setMore({ ...more, key, busy: false, error: /** @type {ApiError} */ (error) });
    }
  };
  return { ...first, rows, total: total(first.data), hasMore, load, busy: more.busy, loadError: more.error };
}

/** What came in since the first page was read shifts the next one. @param {any[]} rows */
function unique(rows) {
  return [...new Map(rows.map((row) => [idOf(row), row])).values()];
}

/** Somebody's membership has the id of the user. @param {any} row */
const idOf = (row) => row.id ?? row.user_id;

/** @param {any} page */
function total(page) {
  if (!page) return "";
  return page.total_is_exact === false ? `${number(page.total)}+` : number(page.total);
}

/** A list as a table with a button for more. @param {any} props */
export function ListTable({ list, caption, columns, empty }) {
  return html`<${Table} caption=${caption} columns=${columns} rows=${list.rows} id=${idOf} empty=${empty} />
    <p class="soft" role="status">${t("list.shown", { shown: list.rows.length, total: list.total })}</p>
    <${Problem} error=${list.loadError} />
    ${list.hasMore && html`<${Button} busy=${list.busy} onClick=${list.load}>${t("list.more")}<//>`}`;
}
