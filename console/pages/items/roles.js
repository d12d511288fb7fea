// What the roles on a site allow, so that nothing is offered which the API refuses.

import { readOnly } from "../../lib/api.js";

const INSPECTORS = ["engineer", "manager"];

/** Whether somebody may change anything at all on a site: an auditor may not, and nobody where this console only shows. @param {any} site @param {any} session */
export function takesPart(site, session) {
  return !readOnly && (session.operates || (site.role !== null && !session.inspects));
}

/** Whether they are an engineer or manager of a site, or an administrator. @param {any} site @param {any} session */
export function inspects(site, session) {
  return session.operates || (takesPart(site, session) && INSPECTORS.includes(site.role));
}

/** @param {any} site @param {any} session */
export function leads(site, session) {
  return session.operates || (takesPart(site, session) && site.role === "manager");
}

/** What somebody may register on a site. @param {any} site @param {any} session @returns {string[]} */
export function kindsFor(site, session) {
  if (takesPart(site, session) && INSPECTORS.includes(site.role)) return ["defect", "task"];
  if (takesPart(site, session) && site.role === "customer") return ["customer_remark"];
  return session.operates ? ["defect", "task", "customer_remark"] : [];
}

/** The steps of an item that are offered. @param {any} item @returns {string[]} */
export function stepsOf(item) {
  return readOnly ? [] : item.permitted_steps ?? [];
}
