// The usual gateway in Node: Express, http-proxy-middleware, and an opossum circuit around each call.
// `node express_proxy.mjs PORT`, run where the packages are installed.
import http from "node:http";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const require = createRequire(process.cwd() + "/");
const load = async (name) => import(pathToFileURL(require.resolve(name)));
const express = (await load("express")).default;
const { createProxyMiddleware } = await load("http-proxy-middleware");
const CircuitBreaker = (await load("opossum")).default;

const app = express();
app.disable("x-powered-by");
const agent = new http.Agent({ keepAlive: true, maxSockets: Infinity, maxFreeSockets: 1024 });

for (const [name, target] of [["users", process.env.USERS_URL], ["orders", process.env.ORDERS_URL]]) {
  const proxy = createProxyMiddleware({ target, changeOrigin: true, agent, pathRewrite: (path, req) => req.originalUrl });
  const circuit = new CircuitBreaker(
    (req, res) =>
      new Promise((resolve, reject) => {
        res.on("finish", () => (res.statusCode >= 500 ? reject(new Error(`status ${res.statusCode}`)) : resolve()));
        res.on("close", () => resolve());
        proxy(req, res, reject);
      }),
    { timeout: 5000, errorThresholdPercentage: 50, resetTimeout: 30000 },
  );
  app.use(`/${name}`, (req, res) => {
    circuit.fire(req, res).catch(() => {
      if (!res.headersSent) {
        res.status(503).json({ success: false, error: { code: "circuit_open", message: "unavailable" } });
      }
    });
  });
}

const server = app.listen({ port: Number(process.argv[2]), host: "127.0.0.1", backlog: 2048 });
process.on("SIGTERM", () => { server.close(); server.closeAllConnections(); process.exit(0); });
