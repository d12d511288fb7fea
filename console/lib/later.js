// What is fetched when it is first shown: pages, and parts of pages that few open.
import { html, useEffect, useState } from "../vendor/preact.js";
import { Button, Page } from "./ui.js";
import { t } from "./words.js";

/**
 * The component that a file exports by default, given what this one gets. @param {() => Promise<any>} from
 * @returns {(props: any) => any} with a `title`, it is a page of this name until its file is there
 */
export function later(from) {
  return ({ title, ...props }) => {
    const [{ Shown, failed }, setLoaded] = useState(/** @type {any} */ ({}));
    useEffect(() => {
      let wanted = true;
      from().then(
        (module) => wanted && setLoaded({ Shown: module.default }),
        () => wanted && setLoaded({ failed: true }),
      );
      return () => {
        wanted = false;
      };
    }, []);
    if (Shown) return html`<${Shown} ...${props} />`;
    // Its file is gone where the gateway has another version by now.
    const said = failed ? html`<${Button} class="main" onClick=${() => location.reload()}>${t("page.reload")}<//>`
      : html`<p class="soft" aria-busy="true">${t("loading")}</p>`;
    return title ? html`<${Page} title=${failed ? t("page.outdated") : title}>${said}<//>` : html`${failed && html`<p>${t("page.outdated")}</p>`}${said}`;
  };
}
