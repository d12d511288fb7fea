// What is shown only once.
import { html, useRef, useState } from "../vendor/preact.js";
import { Button } from "./ui.js";
import { t } from "./words.js";

/** A text to copy. @param {{value: string}} props */
export function Secret({ value }) {
  const element = useRef(/** @type {HTMLElement | null} */ (null));
  const [said, setSaid] = useState("");
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(value);
      setSaid(t("copied"));
    } catch {
      // There is no clipboard without TLS.
      getSelection()?.selectAllChildren(/** @type {Node} */ (element.current));
      setSaid(t("copy.by_hand"));
    }
  };
  return html`<div class="secret"><pre ref=${element} tabindex="0">${value}</pre>
    <div class="deeds"><${Button} onClick=${copy}>${t("copy")}<//><span class="soft" role="status">${said}</span></div></div>`;
}
