// Walks README's tour with openapi-fetch and the generated types: `node tour.ts URL all|no-orders`.
import createClient from "openapi-fetch";
import type { components, paths } from "./siteworks";

declare const process: { argv: string[] };
type Failure = components["schemas"]["Error"];

const ADDRESS = "typescript@example.com";
const PATIENCE_MS = 30_000;
const [url, part] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url });

function same(found: unknown, wanted: unknown): void {
  if (JSON.stringify(found) !== JSON.stringify(wanted))
    throw new Error(`${JSON.stringify(found)} instead of ${JSON.stringify(wanted)}`);
}

function good<T>(answer: { data?: { data: T }; error?: Failure; response: Response }): T {
  if (!answer.data) throw new Error(`${answer.response.status}: ${JSON.stringify(answer.error)}`);
  return answer.data.data;
}

function refused(answer: { error?: Failure; response: Response }, status: number): Failure["error"] {
  same(answer.response.status, status);
  if (!answer.error) throw new Error("no error");
  return answer.error.error;
}

async function watched(id: string): Promise<void> {
  const { data } = await client.GET("/tasks/{id}/events", { params: { path: { id } }, parseAs: "text" });
  if (typeof data !== "string" || !data.includes("event: end")) throw new Error(`no end of ${id}: ${data}`);
}

async function withTheAddress(): Promise<string> {
  const page = good(await client.GET("/users", { params: { query: { email: ADDRESS } } }));
  same(page.total, 1);
  return page.users[0].id;
}

async function walk(): Promise<void> {
  const made = await client.POST("/users", { body: { email: ADDRESS, name: "Белов Ярослав" } });
  const user = good(made);
  same([made.response.status, user.name, user.roles], [201, "Белов Ярослав", ["user"]]);
  const again = await client.POST("/users", { body: { email: ADDRESS.toUpperCase(), name: "Somebody else" } });
  const taken = refused(again, 409);
  same([taken.code, taken.details?.[0].field], ["email_taken", "email"]);
  same(await withTheAddress(), user.id);

  const items = [{ product: "Чокопай", quantity: 10, price: 52.0 }];
  const order = good(await client.POST("/orders", { body: { user_id: user.id, items } }));
  same([order.total_amount, order.status, order.items[0].price], ["520.00", "created", "52.00"]);
  const params = { path: { id: user.id } };
  const details = good(await client.GET("/users/{id}/details", { params }));
  same([details.user.id, details.orders?.[0].id, details.partial], [user.id, order.id, false]);
  const strange = [{ product: "Чокопай", quantity: "10" as unknown as number, price: 52.005 }];
  const wrong = refused(await client.POST("/orders", { body: { user_id: user.id, items: strange } }), 400);
  same(wrong.details?.map((detail) => detail.field), ["items.0.quantity", "items.0.price"]);

  const one = { path: { id: order.id } };
  const seen = (await client.GET("/orders/{id}", { params: one })).response.headers.get("ETag") ?? "";
  const noStep = await client.PUT("/orders/{id}", { params: one, body: { status: "completed" } });
  same(refused(noStep, 409).code, "order_state_conflict");
  const asSeen = { ...one, header: { "If-Match": seen } };
  const step = await client.PATCH("/orders/{id}", { params: asSeen, body: { status: "in_progress" } });
  same(good(step).status, "in_progress");
  const late = await client.PATCH("/orders/{id}", { params: asSeen, body: { status: "in_progress" } });
  same(refused(late, 412).code, "precondition_failed");

  const work = { task_type: "io", payload: { seconds: 1 }, title: "Ask the supplier", user_id: user.id };
  const once = { header: { "Idempotency-Key": "typescript" } };
  const task = good(await client.POST("/tasks", { params: once, body: work }));
  same(good(await client.POST("/tasks", { params: once, body: work })).id, task.id);
  same(good(await client.GET("/users/{id}/tasks", { params })).tasks[0].id, task.id);
  const its = { path: { id: task.id } };
  same(good(await client.GET("/tasks/{id}", { params: { ...its, query: { trace: true } } })).max_attempts, 3);
  await watched(task.id);
  const result = good(await client.GET("/tasks/{id}/result", { params: its }));
  same([result.status, (result.result as { attempt: number }).attempt], ["completed", 1]);

  const alias = createClient<paths>({ baseUrl: `${url}/api/v1` });
  const waiting = good(await alias.POST("/tasks", { body: { execute_at: "2099-01-31T15:00:00Z" } }));
  const query = { status: "pending", task_type: "noop" } as const;
  const listed = good(await client.GET("/tasks", { params: { query } }));
  same(listed.tasks.some((found) => found.id === waiting.id), true);
  const its2 = { path: { id: waiting.id } };
  same(good(await client.DELETE("/tasks/{id}", { params: its2 })).status, "cancelled");
  good(await client.DELETE("/tasks/{id}", { params: { ...its2, query: { purge: true } } }));
  same(refused(await client.GET("/tasks/{id}", { params: its2 }), 404).code, "task_not_found");

  const paint = { task_type: "paint", payload: { areas: [32, 18.5, 21] } };
  const painted = good(await client.POST("/tasks", { body: paint }));
  await watched(painted.id);
  const litres = good(await client.GET("/tasks/{id}/result", { params: { path: { id: painted.id } } })).result;
  same(litres, { litres: 8.9 });

  const limit = Date.now() + PATIENCE_MS;
  while (good(await client.GET("/health")).status !== "healthy") {
    if (Date.now() > limit) throw new Error("never healthy");
    await new Promise((resolve) => setTimeout(resolve, 200));
  }
}

async function walkWithoutOrders(): Promise<void> {
  const codes: string[] = [];
  while (codes.at(-1) !== "circuit_open") {
    if (codes.some((code) => code !== "orders_unavailable") || codes.length > 20) throw new Error(codes.join());
    codes.push(refused(await client.GET("/orders"), 503).code);
  }
  const params = { path: { id: await withTheAddress() } };
  const details = good(await client.GET("/users/{id}/details", { params }));
  same([details.orders, details.partial, details.missing?.orders?.code], [null, true, "circuit_open"]);
  const state = good(await client.GET("/health"));
  same([state.status, state.upstreams.orders.state], ["degraded", "open"]);
}

await (part === "all" ? walk() : walkWithoutOrders());
