// Calls to this page's own server, and the stream of a session's events.

const SILENT_MS = 45_000; // the server says something every 15 s

export class Problem extends Error {
  constructor(message, type, status) {
    super(message);
    this.type = type;
    this.status = status;
  }

  // Nothing was decided: the same call may succeed later.
  get away() {
    return this.status === 0 || this.status >= 500;
  }
}

async function refusal(response) {
  try {
    const { error } = await response.json();
    return new Problem(error.message, error.type, response.status);
  } catch {
    return new Problem(`The server answered ${response.status}.`, "Unknown", response.status);
  }
}

async function call(method, path, body, headers = {}) {
  let response;
  try {
    response = await fetch(path, {
      method,
      headers: body === undefined ? headers : { "Content-Type": "application/json", ...headers },
      body: body === undefined ? undefined : JSON.stringify(body),
      cache: "no-store",
    });
  } catch {
    throw new Problem("The server cannot be reached.", "ServerUnreachable", 0);
  }
  if (!response.ok) throw await refusal(response);
  return response.json();
}

// A key by which a message is taken once, however often it is sent. (randomUUID is not there without TLS.)
export function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

const at = (id, rest = "") => `/api/sessions/${encodeURIComponent(id)}${rest}`;
const query = (given) => new URLSearchParams(Object.entries(given).filter(([, value]) => value)).toString();

export const api = {
  page: () => call("GET", "/api/page"),
  sessions: (given) => call("GET", `/api/sessions?${query(given)}`),
  session: (id) => call("GET", at(id)),
  start: (message, key) => call("POST", "/api/sessions", { message }, { "Idempotency-Key": key }),
  send: (id, message, mode, key) => call("POST", at(id, "/messages"), { message, mode }, { "Idempotency-Key": key }),
  answer: (id, question, reply) => call("POST", at(id, `/interrupts/${encodeURIComponent(question)}`), reply),
  cancel: (id) => call("POST", at(id, "/cancel")),
  fork: (id, seq) => call("POST", at(id, "/fork"), { at: seq }),
  rename: (id, name) => call("PUT", at(id, "/name"), { name }),
  events: (id, after, limit) => call("GET", at(id, `/events?after=${after}&limit=${limit}`)),
  exported: (id, format) => at(id, `/export?format=${format}`),
  artifact: (id, artifact) => at(id, `/artifacts/${encodeURIComponent(artifact)}`),
};

// Events behind a cursor, as long as the connection holds; `onEvents` gets arrays of {id, type, data}.
export async function follow(id, cursor, signal, onOpen, onEvents) {
  const silence = new AbortController();
  let timer = setTimeout(() => silence.abort(), SILENT_MS);
  try {
    const response = await fetch(at(id, "/events"), {
      headers: { Accept: "text/event-stream", "Last-Event-ID": cursor },
      signal: AbortSignal.any([signal, silence.signal]),
      cache: "no-store",
    });
    if (!response.ok) throw await refusal(response);
    onOpen();
    const parser = new Parser();
    const reader = response.body.getReader();
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      clearTimeout(timer);
      timer = setTimeout(() => silence.abort(), SILENT_MS);
      const events = parser.feed(value);
      if (events.length) onEvents(events);
    }
  } finally {
    clearTimeout(timer);
  }
}

// Server-sent events (WHATWG HTML 9.2.6); bytes may be split anywhere.
export class Parser {
  constructor() {
    this.decoder = new TextDecoder();
    this.rest = "";
    this.afterCr = false;
    this.clear();
    this.id = "";
  }

  clear() {
    this.type = "";
    this.data = [];
  }

  feed(bytes) {
    let text = this.decoder.decode(bytes, { stream: true });
    if (this.afterCr && text) text = text.replace(/^\n/, "");
    if (text) this.afterCr = text.endsWith("\r");
    const lines = (this.rest + text).split(/\r\n|\r|\n/);
    this.rest = lines.pop();
    return lines.map((line) => this.line(line)).filter(Boolean);
  }

  line(line) {
    if (line === "") {
      const event = this.data.length
        ? { id: this.id, type: this.type || "message", data: JSON.parse(this.data.join("\n")) }
        : null;
      this.clear();
      return event;
    }
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    const value = colon < 0 ? "" : line.slice(colon + 1).replace(/^ /, "");
    if (name === "data") this.data.push(value);
    else if (name === "event") this.type = value;
    else if (name === "id" && !value.includes("\0")) this.id = value;
    return null;
  }
}
