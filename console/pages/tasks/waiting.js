// Why a task waits, in one sentence.
import { t, time } from "../../lib/words.js";

/**
 * @param {any} task @param {any} types the answer of GET /task-types @param {any} stats that of GET /tasks/stats
 * @param {any} session
 */
export function why(task, types, stats, session) {
  if (task.status !== "pending") return "";
  const type = task.task_type;
  if (task.obstacle === "suspect") return t("task.why.suspect");
  if (Date.parse(task.execute_at) > Date.now()) return t(task.attempts > 0 ? "task.why.retry" : "task.why.due", { at: time(task.execute_at) });
  if (task.obstacle === "paused") return t("task.why.paused", { type });
  const kind = types?.task_types.find((/** @type {any} */ one) => one.name === type);
  if (task.obstacle === "no_worker") {
    return kind?.needs.length ? t("task.why.needs", { type, needs: kind.needs.join(", ") }) : t("task.why.no_worker", { type });
  }
  const running = stats?.types.find((/** @type {any} */ one) => one.task_type === type)?.counts.processing ?? 0;
  const most = kind?.max_running ?? kind?.limits?.max_running;
  const mostOfUser = kind?.max_running_per_user ?? kind?.limits?.max_running_per_user;
  // Whoever reads only their own tasks sees only these counted.
  if (session.inspects && most && running >= most) return t("task.why.limit", { type, most });
  if (!session.inspects && mostOfUser && running >= mostOfUser) return t("task.why.limit_of_user", { type, most: mostOfUser });
  const { slots = 0, busy = 0 } = stats?.workers ?? {};
  if (slots > 0 && busy >= slots) return t("task.why.slots", { slots });
  return t("task.why.turn");
}
