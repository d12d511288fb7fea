// Where the console begins: who is here, what they may see, and the page that the address names.
import { html, render, useEffect } from "./vendor/preact.js";
import { later } from "./lib/later.js";
import { usePlace } from "./lib/router.js";
import { useSession } from "./lib/session.js";
import { Top } from "./lib/top.js";
import { Page, Problem } from "./lib/ui.js";
import { t } from "./lib/words.js";

/** Each page: the first part of its address, and what shows it. @type {Record<string, any>} */
const PAGES = {
  items: later(() => import("./pages/items/page.js")),
  sites: later(() => import("./pages/sites/page.js")),
  reports: later(() => import("./pages/reports/page.js")),
  orders: later(() => import("./pages/orders/page.js")),
  users: later(() => import("./pages/users/page.js")),
  tasks: later(() => import("./pages/tasks/page.js")),
  types: later(() => import("./pages/types/page.js")),
  schedules: later(() => import("./pages/schedules/page.js")),
  messages: later(() => import("./pages/messages/page.js")),
  services: later(() => import("./pages/services/page.js")),
  audit: later(() => import("./pages/audit/page.js")),
  login: later(() => import("./pages/login/page.js")),
  link: later(() => import("./pages/link/page.js")),
  account: later(() => import("./pages/account/page.js")),
};

/** @param {{name: string, place: import("./lib/router.js").Place, session: any}} props */
function Shown({ name, place, session }) {
  useEffect(() => document.getElementById("main")?.focus(), [name]);
  if (!(name in PAGES)) return html`<${Page} title=${t("page.missing")}><p>${t("page.missing.why")}</p><//>`;
  return html`<${PAGES[name]} key=${name} title=${t(`nav.${name}`)} place=${place} session=${session} />`;
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
