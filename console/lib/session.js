// Who uses the console.
import { useCallback, useEffect, useRef, useState } from "../vendor/preact.js";
import { actAs, ask, noteLogin, readOnly, whenLoggedOut } from "./api.js";

/** How soon somebody learns that they are out, or have other roles, in milliseconds. */
const LOOKS_EVERY = 3000;
/** How old an answer may be, in seconds: without its session, or with other roles, nobody gets one. */
const OLDEST = 30;

/**
 * Who is here: `state` asking, in, out (somebody has to log in, or, with `me`, to change their password) or failed; in,
 * also `me`, whether logins are `open` (nobody logs in here), whether they `inspect` and `operate` the system, and the
 * page to begin at.
 * @returns {any}
 */
export function useSession() {
  const [seen, setSeen] = useState(/** @type {any} */ ({ state: "asking" }));
  const underWay = useRef(false);
  const changedAt = useRef(Date.now());
  const out = () => setSeen((/** @type {any} */ before) => ({ state: "out", ended: before.ended || (before.state === "in" && !before.open) }));
  const look = useCallback(async (age = 0) => {
    underWay.current = true;
    try {
      const me = (await ask("/auth/me", { headers: { "Cache-Control": `max-age=${age}` } })).data;
      const admin = me.roles.includes("admin");
      const now = me.must_change_password ? { state: "out", me } : {
        state: "in", me, open: me.session_id === null || actAs.get() !== null, operates: admin && !readOnly, inspects: admin || me.roles.includes("auditor"),
        home: me.id === null ? "services" : "items",
      };
      noteLogin(!now.open);
      setSeen((/** @type {any} */ before) => (JSON.stringify(before) === JSON.stringify(now) ? before : now));
    } catch (error) {
      const status = /** @type {any} */ (error).status;
      if (status === 401) out();
      else if (actAs.get() && (status === 404 || status === 400)) {
        // The person whom this tab acted as is no longer there.
        actAs.set(null);
        look();
      } else setSeen((/** @type {any} */ before) => (before.state === "in" ? before : { state: "failed", error }));
    }
    underWay.current = false;
  }, []);
  useEffect(() => {
    whenLoggedOut(out);
    look();
  }, []);
  const watched = seen.state === "in" && !seen.open;
  useEffect(() => {
    if (!watched) return undefined;
    const due = () => {
      // Nothing from before what was done here.
      if (!document.hidden && !underWay.current) look(Date.now() - changedAt.current > OLDEST * 1000 ? OLDEST : 0);
    };
    const timer = setInterval(due, LOOKS_EVERY);
    document.addEventListener("visibilitychange", due);
    return () => {
      clearInterval(timer);
      document.removeEventListener("visibilitychange", due);
    };
  }, [watched]);
  const again = useCallback(() => {
    changedAt.current = Date.now();
    look();
  }, []);
  return { ...seen, again };
}
