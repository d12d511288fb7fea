// A task as it goes on. Its event stream is followed by one visible tab of the browser; the others ask every two seconds.
import { useEffect, useState } from "../../vendor/preact.js";
import { ROOT, actAs, path } from "../../lib/api.js";
import { useLive } from "../../lib/live.js";

/** The task without its payload and result. @param {string} id */
export function useTask(id) {
  const target = path`/tasks/${id}`;
  const [streams, setStreams] = useState(false);
  const [progress, setProgress] = useState(/** @type {any} */ (null));
  const live = useLive(target, { query: { light: true }, seconds: streams ? 0 : 2 });
  const runs = ["pending", "processing"].includes(live.data?.status);

  useEffect(() => {
    // An event stream cannot say whom the tab acts as.
    if (!runs || actAs.get() || !navigator.locks) return undefined;
    /** @type {EventSource | undefined} */
    let source;
    let over = false, release = () => {};
    const close = () => {
      source?.close();
      source = undefined;
      release();
      setStreams(false);
    };
    const open = () => {
      if (document.hidden) return close();
      // A browser has six connections to a server: streams in all tabs would leave none for the pages.
      navigator.locks.request("event stream", { ifAvailable: true }, (lock) => {
        if (!lock || over || document.hidden) return undefined;
        const stream = source = new EventSource(`${ROOT}${target.slice(1)}/events`);
        stream.addEventListener("open", () => setStreams(true));
        stream.addEventListener("status", live.again);
        stream.addEventListener("progress", (event) => setProgress(JSON.parse(event.data)));
        stream.addEventListener("end", () => {
          close();
          live.again();
        });
        stream.addEventListener("error", () => (stream.readyState === EventSource.CLOSED ? close() : setStreams(false)));
        return new Promise((/** @type {(value?: unknown) => void} */ resolve) => {
          release = resolve;
        });
      });
      return undefined;
    };
    open();
    document.addEventListener("visibilitychange", open);
    return () => {
      over = true;
      document.removeEventListener("visibilitychange", open);
      close();
    };
  }, [target, runs]);

  const isCurrent = streams && progress?.id === id && live.data?.status === "processing";
  return { ...live, data: isCurrent ? { ...live.data, progress } : live.data };
}
