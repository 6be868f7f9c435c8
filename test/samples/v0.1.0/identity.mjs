// The part of tka-server 0.1.0 that decides who calls and with which role, bundled from its source.
var unsafe = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\p{Cs}\u{e0000}-\u{e007f}]/gu;
function cleanText(text, limit2 = 256) {
  if (text.length <= limit2 && /^[!-~]*$/.test(text)) return text;
  let plain = (text.length > limit2 * 8 ? text.slice(0, limit2 * 8) : text).replace(/[\s\u0000-\u001f]+/gu, " ").replace(unsafe, "").trim(), points = [...plain];
  return points.length > limit2 ? `${points.slice(0, limit2 - 1).join("")}\u2026` : plain;
}

var TkaError = class extends Error {
  name = "TkaError";
  hints;
  exitCode;
  constructor(message, options = {}) {
    super(message, options.cause === void 0 ? void 0 : { cause: options.cause }), this.hints = options.hints ?? [], this.exitCode = options.exitCode ?? 1;
  }
};
function systemCode(error) {
  for (let e = error, depth = 0; e instanceof Error && depth < 5; e = e.cause, depth++) {
    let code = e.code;
    if (typeof code == "string") return code;
    if (e instanceof AggregateError) {
      let inner = e.errors.map(systemCode).find((c) => c !== void 0);
      if (inner !== void 0) return inner;
    }
  }
}

var TailscaleError = class extends TkaError {
  name = "TailscaleError";
  problem;
  constructor(problem, message, hints, cause) {
    super(message, { hints, cause }), this.problem = problem;
  }
};
function startHint(platform) {
  return platform === "linux" ? "sudo systemctl start tailscaled" : "open the Tailscale app";
}

import { request } from "node:http";

import * as fs from "node:fs/promises";
import * as path from "node:path";
var pipe = "\\\\.\\pipe\\ProtectedPrefix\\Administrators\\Tailscale\\tailscaled";
function namedSocket({ env }) {
  return env.TS_SOCKET || void 0;
}
async function placesOf(options) {
  let { platform = process.platform, root = "/" } = options, socket = (socketPath) => ({ at: socketPath, socketPath }), named = namedSocket(options);
  if (named !== void 0) return [socket(named)];
  if (platform === "win32") return [socket(pipe)];
  if (platform !== "darwin")
    return ["var/run/tailscale/tailscaled.sock", "run/tailscale/tailscaled.sock"].map(
      (name) => socket(path.join(root, name))
    );
  let app = await macApp(path.join(root, "Library/Tailscale"));
  return [socket(path.join(root, "var/run/tailscaled.socket")), ...app === void 0 ? [] : [app]];
}
async function macApp(folder) {
  try {
    let port = await portOf(path.join(folder, "ipnport"));
    if (!/^[1-9][0-9]{0,4}$/.test(port) || Number(port) > 65535) return;
    let password = await firstBytes(path.join(folder, `sameuserproof-${port}`));
    return /^[\x21-\x7e]{1,256}$/.test(password) ? { at: `127.0.0.1:${port}`, port: Number(port), password } : void 0;
  } catch {
    return;
  }
}
async function portOf(file) {
  try {
    return await fs.readlink(file);
  } catch (error) {
    if (systemCode(error) !== "EINVAL") throw error;
    return await firstBytes(file);
  }
}
async function firstBytes(file) {
  let handle = await fs.open(file);
  try {
    let { buffer, bytesRead } = await handle.read(Buffer.alloc(1024), 0, 1024, 0);
    return buffer.toString("latin1", 0, bytesRead).trim();
  } finally {
    await handle.close();
  }
}

var usualLimit = 1024 * 1024;
async function localRequest(path2, options) {
  let signal = AbortSignal.timeout(Math.max(1, Math.ceil(options.timeout))), worst;
  for (let place of await placesOf(options)) {
    let started = performance.now(), log = (what) => options.log(`GET ${path2} at ${place.at}: ${what}, ${(performance.now() - started).toFixed(1)} ms`);
    try {
      let answer = await ask(place, path2, signal, options.limit ?? usualLimit);
      if (log(`${answer.status}, ${answer.body.length} characters`), answer.status !== 401 && answer.status !== 403) return answer;
      worst = denied(place, `tailscaled refuses to answer: ${cleanText(answer.body, 200) || `HTTP ${answer.status}`}`);
    } catch (error) {
      log(error instanceof Error ? cleanText(error.message) : "failed");
      let problem = problemOf(error, place, options);
      if (problem.problem === "no-answer" || problem.problem === "unreadable") throw problem;
      worst?.problem !== "denied" && (worst = problem);
    }
  }
  throw worst ?? new TailscaleError("absent", "tailscaled has no place where it could be asked", []);
}
async function ask(place, path2, signal, limit2) {
  let response = await new Promise((resolve, reject) => {
    let to = "socketPath" in place ? { socketPath: place.socketPath } : { host: "127.0.0.1", port: place.port, auth: `:${place.password}` };
    request({ ...to, path: path2, signal, agent: !1, headers: { host: "local-tailscaled.sock" } }, resolve).on("error", reject).end();
  }), chunks = [], size = 0;
  for await (let chunk of response)
    if (chunks.push(chunk), size += chunk.length, size > limit2)
      throw new TailscaleError("unreadable", `tailscaled sent more than ${limit2 >> 20} MiB`, [
        "see what it says: tailscale status"
      ]);
  return { status: response.statusCode ?? 0, body: Buffer.concat(chunks).toString("utf8") };
}
function problemOf(error, place, options) {
  if (error instanceof TailscaleError) return error;
  let code = systemCode(error) ?? "";
  if (error instanceof Error && /^(?:AbortError|TimeoutError)$/.test(error.name)) {
    let seconds = Math.round(options.timeout / 100) / 10;
    return new TailscaleError("no-answer", `tailscaled does not answer (${place.at}, within ${seconds} s)`, [
      "see whether it is well: tailscale status"
    ]);
  }
  return code === "EACCES" || code === "EPERM" ? denied(place, `permission denied on tailscaled's socket ${place.at}`, error) : /^(?:ENOENT|ENOTDIR|ECONNREFUSED|ENOTSOCK|EINVAL|EPROTOTYPE|ENAMETOOLONG)$/.test(code) ? namedSocket(options) === void 0 ? absentError(options.platform, error) : new TailscaleError(
    "not-running",
    `no tailscaled at ${cleanText(place.at)}, the socket that TS_SOCKET names (${code})`,
    ["is it running there? with `unset TS_SOCKET` the usual one is asked"],
    error
  ) : new TailscaleError(
    "no-answer",
    `the connection to tailscaled broke (${code || "it does not speak HTTP"})`,
    ["see whether it is well: tailscale status"],
    error
  );
}
function denied(place, message, cause) {
  let hint = "socketPath" in place ? `see who may use it: ls -l ${cleanText(place.at)}` : "run it as the user of the Tailscale app";
  return new TailscaleError("denied", message, [hint], cause);
}
function absentError(platform = process.platform, cause) {
  return new TailscaleError(
    "absent",
    "tailscale is not installed, or not running",
    [
      "install it (https://tailscale.com/download), then type: tailscale up",
      `if it is installed: ${startHint(platform)}`
    ],
    cause
  );
}

import { BlockList, isIP } from "node:net";
var tailnet = new BlockList();
tailnet.addSubnet("100.64.0.0", 10, "ipv4");
tailnet.addSubnet("fd7a:115c:a1e0::", 48, "ipv6");
var loopback = new BlockList();
loopback.addSubnet("127.0.0.0", 8, "ipv4");
loopback.addAddress("::1", "ipv6");

var isObject = (value) => typeof value == "object" && value !== null && !Array.isArray(value), own = (object, key) => isObject(object) && Object.hasOwn(object, key) ? object[key] : void 0;
function texts(value, limit2) {
  return Array.isArray(value) ? value.slice(0, limit2).filter((item) => typeof item == "string") : [];
}
function parseJson(text, unreadable2) {
  try {
    return JSON.parse(text);
  } catch (cause) {
    throw unreadable2("no JSON", cause);
  }
}

function addressPort(address, port) {
  let plain = address.replace(/^::ffff:(?=[0-9.]+$)/i, "");
  return plain.includes(":") ? `[${plain}]:${port}` : `${plain}:${port}`;
}
async function whoIs(address, port, options) {
  let query = new URLSearchParams({ addr: addressPort(address, port), proto: "tcp" }), { status, body } = await localRequest(`/localapi/v0/whois?${query}`, options);
  if (status === 404) return;
  if (status !== 200) throw unreadable(`HTTP ${status}`);
  let answer = parseJson(body, unreadable), login = own(own(answer, "UserProfile"), "LoginName"), map = own(answer, "CapMap");
  return {
    login: typeof login == "string" && login.length <= 320 ? login : "",
    tags: texts(own(own(answer, "Node"), "Tags"), 64),
    rules(capability) {
      let rules = own(map, capability);
      return Array.isArray(rules) ? rules : [];
    }
  };
}
function unreadable(what, cause) {
  return new TailscaleError(
    "unreadable",
    `tailscaled's answer to whois cannot be read (${what})`,
    ["see what it says: tailscale whois"],
    cause
  );
}

var limit = 64 * 1024 * 1024;

var Refusal = class extends Error {
  name = "Refusal";
  status;
  body;
  retryAfterSeconds;
  constructor(status, body, retryAfterSeconds) {
    super(body.message), this.status = status, this.body = body, this.retryAfterSeconds = retryAfterSeconds;
  }
};

var isLoopback = (address) => /^(?:(?:::ffff:)?127\.[0-9.]+|::1)$/i.test(address);

var unitMs = {
  ns: 1e-6,
  us: 1e-3,
  \u00B5s: 1e-3,
  ms: 1,
  s: 1e3,
  m: 6e4,
  h: 36e5
};
function goDuration(text) {
  if (!/^(?:[0-9]+(?:\.[0-9]*)?(?:ns|us|µs|ms|s|m|h))+$/.test(text)) return;
  let total = 0;
  for (let [, number, unit] of text.matchAll(/([0-9.]+)(ns|us|µs|ms|s|m|h)/g))
    total += Number(number) * (unitMs[unit ?? ""] ?? Number.NaN);
  return Number.isNaN(total) ? void 0 : total;
}

function grantOf(rules, username) {
  if (rules.length === 0) throw new Refusal(403, { message: "No grant found for user" });
  let read = rules.map((rule) => readRule(rule, username)), best = read.reduce((a, b) => b.priority > a.priority ? b : a);
  if (new Set(read.map((rule) => rule.priority)).size < read.length)
    throw new Refusal(400, {
      message: "Multiple capability rules with the same priority found",
      advice: ["Please ensure that no two capability rules have the same priority: which one holds could not be told"]
    });
  let periodMs = best.period === "0" ? 0 : goDuration(best.period);
  if (periodMs !== void 0 && periodMs <= 2 ** 63 / 1e6) return { role: best.role, periodMs };
  let problem = new Refusal(500, { message: "Error parsing duration", cause: { message: goProblem(best.period) } });
  return { role: best.role, periodMs: 0, problem };
}
function readRule(rule, username) {
  let wrong = (what) => new Refusal(400, {
    message: "Error unmarshaling api capability map",
    advice: [`Check the syntax of your api ACL for user ${cleanText(username, 64)}.`],
    cause: { message: what }
  });
  if (typeof rule != "object" || rule === null || Array.isArray(rule)) throw wrong("a rule is no object");
  let { role, period = "", priority = 0 } = rule;
  if (typeof role != "string" || role === "") throw wrong("the role of a rule must be the name of a ClusterRole");
  if (typeof period != "string") throw wrong("the period of a rule must be a text like 8h");
  if (typeof priority != "number" || !Number.isSafeInteger(priority))
    throw wrong("the priority of a rule must be a whole number");
  return { role, period, priority };
}
function goProblem(period) {
  let shown = JSON.stringify(cleanText(period, 64));
  if (/^[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)$/.test(period)) return `time: missing unit in duration ${shown}`;
  let unit = /^[+-]?(?:[0-9.]+(?:ns|us|µs|μs|ms|s|m|h))*[0-9.]+([^0-9.]+)/.exec(period)?.[1];
  return unit !== void 0 && !/^(?:ns|us|µs|μs|ms|s|m|h)$/.test(unit) ? `time: unknown unit ${JSON.stringify(cleanText(unit, 64))} in duration ${shown}` : `time: invalid duration ${shown}`;
}

function tailnetIdentity(options) {
  let { capName, env, log, timeoutMs = 5e3, userspace = !1 } = options;
  async function ask2(address, port) {
    try {
      return await whoIs(address, port, { env, timeout: timeoutMs, log: (line) => log.debug({}, line) });
    } catch (error) {
      throw log.error({ err: error }, "tailscaled does not say who calls"), new Refusal(
        503,
        {
          message: "the TKA server cannot ask tailscaled who you are",
          advice: ["try again in a moment", "if it stays so, ask who runs the TKA server: its log says why"]
        },
        1
      );
    }
  }
  let gone = () => new Refusal(400, { message: "who is gone?" });
  return {
    async whoIs(request2) {
      let { remoteAddress, remotePort } = request2.socket;
      if (isForwarded(request2)) throw new Refusal(403, { message: "Unauthorized request from Funnel" });
      if (remoteAddress === void 0 || remotePort === void 0) throw gone();
      let who = userspace && !isLoopback(remoteAddress) ? void 0 : await ask2(remoteAddress, remotePort);
      if (request2.socket.destroyed) throw gone();
      if (who === void 0)
        throw new Refusal(403, {
          message: "your connection does not come from a device of the tailnet",
          advice: ["connect to the tailnet: tailscale up"]
        });
      if (who.tags.length > 0) throw new Refusal(400, { message: "tagged nodes not (yet) supported" });
      let username = who.login.split("@", 1)[0] ?? "";
      if (username === "") throw new Refusal(400, { message: "tailscaled knows no login name for your device" });
      return { username, login: who.login, ...grantOf(who.rules(capName), username) };
    }
  };
}
function isForwarded({ headers, socket }) {
  if (headers["tailscale-funnel-request"] !== void 0) return !0;
  let { localAddress = "", remoteAddress } = socket;
  return remoteAddress === localAddress && !isLoopback(localAddress) && headers["x-forwarded-for"] !== void 0;
}
export {
  tailnetIdentity
};
