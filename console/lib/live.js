// What keeps a page up to date.
import { useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { ask, withQuery } from "./api.js";

/** After how many seconds, at the least, what was away is asked for again. */
const AWAY = 5;

/**
 * What a GET answers, asked for again every `seconds` (0: never): not while the page is hidden, and never twice at a
 * time. What was there stays while it fails; what is away is asked for until it is there.
 * @param {string | null} target null: nothing yet
 * @param {{query?: Record<string, unknown>, seconds?: number}} [options]
 * @returns {{data: any, etag: string | null, error: import("./api.js").ApiError | null, again: () => void}}
 */
export function useLive(target, { query = {}, seconds = 0 } = {}) {
  const address = target === null ? null : withQuery(target, query);
  const [seen, setSeen] = useState(/** @type {any} */ ({ address: null, data: null, error: null }));
  const asked = useRef(/** @type {() => void} */ (() => {}));

  useEffect(() => {
    if (address === null) return undefined;
    const ending = new AbortController();
    let timer = 0, underWay = false, wanted = false, pause = seconds;
    /** @type {string | null} */
    let etag = null;
    const look = async (/** @type {Record<string, string>} */ fields = {}) => {
      clearTimeout(timer);
      if (underWay) {
        wanted = true;
        return;
      }
      underWay = true;
      try {
        const answer = await ask(address, { signal: ending.signal, headers: etag ? { ...fields, "If-None-Match": etag } : fields });
        etag = answer.etag;
        pause = seconds;
        if (answer.status !== 304) setSeen({ address, data: answer.data, etag, error: null });
      } catch (error) {
        if (ending.signal.aborted) return;
        const { status, retryAfter } = /** @type {import("./api.js").ApiError} */ (error);
        pause = seconds || ([0, 502, 503, 504].includes(status) ? Math.max(retryAfter, AWAY) : 0);
        setSeen((/** @type {any} */ before) => ({ address, data: before.address === address ? before.data : null, etag: before.etag, error }));
      }
      underWay = false;
      if (wanted) {
        wanted = false;
        look();
      } else if (pause && !document.hidden) timer = setTimeout(due, pause * 1000);
    };
    // An answer that somebody else got since the last one here will do: many consoles cost the database what one does.
    const due = () => !document.hidden && look({ "Cache-Control": `max-age=${seconds}` });
    const shown = () => {
      if (!document.hidden && pause) look();
    };
    document.addEventListener("visibilitychange", shown);
    asked.current = () => look();
    look();
    return () => {
      ending.abort();
      clearTimeout(timer);
      document.removeEventListener("visibilitychange", shown);
    };
  }, [address, seconds]);

  const again = useCallback(() => asked.current(), []);
  const current = seen.address === address;
  return { data: current ? seen.data : null, etag: current ? seen.etag : null, error: current ? seen.error : null, again };
}

/** The state of a deed: run it, and know whether it is under way and what went wrong. */
export function useDeed() {
  const [state, setState] = useState(/** @type {{busy: boolean, error: any}} */ ({ busy: false, error: null }));
  const busy = useRef(false);
  const run = useCallback(async (/** @type {() => Promise<any>} */ deed) => {
    // A second press while the first is under way does nothing.
    if (busy.current) return undefined;
    busy.current = true;
    setState({ busy: true, error: null });
    try {
      const made = await deed();
      setState({ busy: false, error: null });
      return made ?? true;
    } catch (error) {
      setState({ busy: false, error });
      return undefined;
    } finally {
      busy.current = false;
    }
  }, []);
  return { ...state, run, forget: () => setState({ busy: false, error: null }) };
}
