// Where the console begins: who is here, what they may see, and the page that the address names.
import { html, render, useEffect, useState } from "./vendor/preact.js";
import { usePlace } from "./lib/router.js";
import { useSession } from "./lib/session.js";
import { Top } from "./lib/top.js";
import { Page, Problem } from "./lib/ui.js";
import { t } from "./lib/words.js";

/** Each page: the first part of its address, and the file that shows it. @type {Record<string, () => Promise<any>>} */
const PAGES = {
  items: () => import("./pages/items/page.js"),
  sites: () => import("./pages/sites/page.js"),
  reports: () => import("./pages/reports/page.js"),
  orders: () => import("./pages/orders/page.js"),
  users: () => import("./pages/users/page.js"),
  tasks: () => import("./pages/tasks/page.js"),
  types: () => import("./pages/types/page.js"),
  schedules: () => import("./pages/schedules/page.js"),
  messages: () => import("./pages/messages/page.js"),
  services: () => import("./pages/services/page.js"),
  audit: () => import("./pages/audit/page.js"),
  login: () => import("./pages/login/page.js"),
  link: () => import("./pages/link/page.js"),
  account: () => import("./pages/account/page.js"),
};

/** @param {{name: string, place: import("./lib/router.js").Place, session: any}} props */
function Shown({ name, place, session }) {
  const [loaded, setLoaded] = useState(/** @type {any} */ ({}));
  useEffect(() => {
    let wanted = true;
    PAGES[name]?.().then(
      (module) => wanted && setLoaded({ name, Shown: module.default }),
      () => wanted && setLoaded({ name, failed: true }),
    );
    document.getElementById("main")?.focus();
    return () => {
      wanted = false;
    };
  }, [name]);
  if (!(name in PAGES)) return html`<${Page} title=${t("page.missing")}><p>${t("page.missing.why")}</p><//>`;
  if (loaded.name !== name) return html`<${Page} title=${t(`nav.${name}`)}><p class="soft" aria-busy="true">${t("loading")}</p><//>`;
  // Its file is gone where the gateway has another version by now.
  if (loaded.failed) return html`<${Page} title=${t("page.outdated")}><button class="main" onClick=${() => location.reload()}>${t("page.reload")}</button><//>`;
  return html`<${loaded.Shown} place=${place} session=${session} />`;
}

function App() {
  const place = usePlace();
  const session = useSession();
  if (session.state === "asking") return html`<${Page} title="Siteworks"><p class="soft" aria-busy="true">${t("loading")}</p><//>`;
  if (session.state === "failed") return html`<${Page} title="Siteworks"><${Problem} error=${session.error} /><button class="main" onClick=${session.again}>${t("again")}</button><//>`;
  // Whoever has a link need not have logged in.
  if (place.parts[0] === "link") return html`<${Shown} name="link" place=${place} session=${session} />`;
  if (session.state === "out") return html`<${Shown} name="login" place=${place} session=${session} />`;
  const name = place.parts[0] && place.parts[0] !== "login" ? place.parts[0] : session.home;
  return html`<${Top} place=${place} session=${session} /><${Shown} name=${name} place=${place} session=${session} />`;
}

render(html`<${App} />`, /** @type {Element} */ (document.getElementById("app")));
