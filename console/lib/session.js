// Who uses the console.
import { useCallback, useEffect, useState } from "../vendor/preact.js";
import { actAs, read, whenLoggedOut } from "./api.js";

/**
 * Who is here: `state` asking, in, out (somebody has to log in) or failed; in, also `me`, whether logins are `open`
 * (nobody logs in here), whether they `inspect` and `operate` the system, and the page to begin at.
 * @returns {any}
 */
export function useSession() {
  const [seen, setSeen] = useState(/** @type {any} */ ({ state: "asking" }));
  const again = useCallback(async () => {
    try {
      const me = await read("/auth/me");
      const admin = me.roles.includes("admin");
      setSeen({
        state: "in", me, open: me.session_id === null || actAs.get() !== null, operates: admin, inspects: admin || me.roles.includes("auditor"),
        home: me.id === null ? "services" : "items",
      });
    } catch (error) {
      const status = /** @type {any} */ (error).status;
      if (status === 401) setSeen({ state: "out" });
      else if (actAs.get() && (status === 404 || status === 400)) {
        // The person whom this tab acted as is no longer there.
        actAs.set(null);
        again();
      } else setSeen({ state: "failed", error });
    }
  }, []);
  useEffect(() => {
    whenLoggedOut(() => setSeen({ state: "out" }));
    again();
  }, []);
  return { ...seen, again };
}
