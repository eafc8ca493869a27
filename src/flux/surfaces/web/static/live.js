// A session that is open in this tab: its history, its stream, and the messages on their way to it.

import { Problem, api, follow, newKey } from "./api.js";
import { carryOver, empty, firstRun, fold, reduce, status } from "./store.js";

const PAGE = 200;
const MOST_PAGES = 5; // read back for the beginning of a run
const BACKOFF_MS = [200, 400, 800, 1500, 3000];
const HIDDEN_MS = 30_000; // a hidden tab lets go of its connection: a browser has only six for a page's server

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

export class Session {
  constructor(id, onChange) {
    this.id = id;
    this.state = empty();
    this.row = null;
    this.outbox = [];
    this.loading = true;
    this.connected = true;
    this.problem = null;
    this.first = 0; // everything behind this seq is loaded
    this.entries = [];
    this.buffer = [];
    this.cursor = "0";
    this.onChange = onChange;
    this.closed = new AbortController();
    this.wake = null;
  }

  get more() {
    return this.first > 0;
  }

  get status() {
    const now = status(this.state);
    return now === "idle" && this.outbox.some((sent) => sent.state !== "failed") ? "working" : now;
  }

  get spent() {
    const { tokens, cost } = this.state.spent;
    return { tokens: tokens + (this.base?.total || 0), cost: cost + (this.base?.cost || 0) };
  }

  async open() {
    document.addEventListener("visibilitychange", this.onVisibility);
    window.addEventListener("online", this.onVisibility);
    if (!(await this.retrying(() => this.load()))) return;
    this.loading = false;
    this.onChange();
    await this.stream();
  }

  close() {
    this.closed.abort();
    document.removeEventListener("visibilitychange", this.onVisibility);
    window.removeEventListener("online", this.onVisibility);
  }

  // --- history

  async load() {
    this.row = await api.session(this.id);
    this.base = this.row.usage;
    this.first = this.row.head;
    this.cursor = String(this.row.head);
    this.entries = [];
    await this.readBack();
    this.state = { ...fold(this.entries, this.first === 0), spent: { tokens: 0, cost: 0 } };
    this.state.seq = Math.max(this.state.seq, this.row.head);
  }

  // One page more, and further until it shows the beginning of a run.
  async readBack() {
    const had = this.entries.length;
    for (let page = 0; page < MOST_PAGES && this.first > 0; page += 1) {
      const after = Math.max(0, this.first - PAGE);
      const { items } = await api.events(this.id, after, this.first - after);
      this.entries = [...items, ...this.entries];
      this.first = after;
      const run = firstRun(this.entries);
      if (run >= 0 && run < this.entries.length - had) return;
    }
  }

  async older() {
    if (this.readingBack || !this.first) return;
    this.readingBack = true;
    this.onChange();
    try {
      await this.readBack();
      this.flush();
      this.state = carryOver(fold(this.entries, this.first === 0), this.state);
    } catch (error) {
      this.tell(error);
    }
    this.readingBack = false;
    this.onChange();
  }

  // --- what happens

  async stream() {
    for (let failures = 0; !this.closed.signal.aborted; failures += 1) {
      try {
        this.connection = new AbortController();
        await follow(this.id, this.cursor, AbortSignal.any([this.connection.signal, this.closed.signal]),
          () => { failures = 0; this.setConnected(true); },
          (events) => this.take(events));
      } catch (error) {
        if (this.closed.signal.aborted) return;
        if (error instanceof Problem && !error.away) {
          this.tell(error);
          return;
        }
      }
      if (this.closed.signal.aborted) return;
      if (!this.asleep) this.setConnected(failures === 0 && this.connected);
      await this.patience(failures);
    }
  }

  take(events) {
    this.cursor = events.at(-1).id;
    this.buffer.push(...events);
    if (this.due) return;
    this.due = true;
    if (document.hidden) setTimeout(this.flush, 250);
    else requestAnimationFrame(this.flush);
  }

  // Everything that came since the last frame is drawn at once.
  flush = () => {
    this.due = false;
    const events = this.buffer;
    if (!events.length) return;
    this.buffer = [];
    for (const { type, data } of events) {
      if (data.seq !== undefined && data.seq > (this.entries.at(-1)?.seq ?? 0)) this.entries.push(data);
      if (type === "user_message") this.arrived(data);
    }
    const before = this.status;
    this.state = reduce(this.state, events);
    this.onChange(before !== this.status);
  };

  setConnected(connected) {
    if (this.connected === connected) return;
    this.connected = connected;
    this.onChange();
  }

  async patience(failures) {
    const ms = this.asleep ? 3_600_000 : BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)];
    await Promise.race([pause(ms), new Promise((done) => { this.wake = done; })]);
  }

  onVisibility = () => {
    clearTimeout(this.sleepTimer);
    if (!document.hidden) {
      this.asleep = false;
      this.wake?.();
      return;
    }
    this.sleepTimer = setTimeout(() => {
      if (this.status === "working") return;
      this.asleep = true;
      this.connection?.abort();
    }, HIDDEN_MS);
  };

  async retrying(work) {
    for (let failures = 0; !this.closed.signal.aborted; failures += 1) {
      try {
        await work();
        this.setConnected(true);
        return true;
      } catch (error) {
        if (!(error instanceof Problem)) throw error;
        if (!error.away) {
          this.loading = false;
          this.gone = error.status === 404;
          this.tell(error);
          return false;
        }
        this.setConnected(false);
        await this.patience(failures);
      }
    }
    return false;
  }

  // --- what a person does

  async send(text, mode = "queue") {
    const sent = { key: newKey(), text, mode, state: "sending" };
    this.outbox = [...this.outbox, sent];
    this.onChange(true);
    await this.post(sent);
  }

  // The same key each time: however often it is sent, it is taken once.
  async post(sent) {
    for (let failures = 0; ; failures += 1) {
      try {
        const { message } = await api.send(this.id, sent.text, sent.mode, sent.key);
        sent.id = message;
        if (this.seen?.has(message)) this.remove(sent);
        return;
      } catch (error) {
        if (!error.away || this.closed.signal.aborted) {
          Object.assign(sent, { state: "failed", error: error.message });
          this.onChange();
          return;
        }
        this.setConnected(false);
        await pause(BACKOFF_MS[Math.min(failures, BACKOFF_MS.length - 1)]);
      }
    }
  }

  again(sent) {
    sent.state = "sending";
    this.onChange();
    return this.post(sent);
  }

  arrived(data) {
    this.seen ??= new Set();
    this.seen.add(data.id);
    const text = data.parts.map((part) => part.text || "").join("");
    const sent = this.outbox.find((one) => one.id === data.id) || this.outbox.find((one) => !one.id && one.text === text);
    if (sent) this.outbox = this.outbox.filter((one) => one !== sent);
  }

  remove(sent) {
    this.outbox = this.outbox.filter((one) => one !== sent);
    this.onChange(true);
  }

  async answer(question, reply) {
    await api.answer(question.session || this.id, question.id, reply);
  }

  async stop() {
    try {
      await api.cancel(this.id);
    } catch (error) {
      this.tell(error);
    }
  }

  tell(error) {
    this.problem = error?.message || String(error);
    this.onChange();
  }

  forget = () => {
    this.problem = null;
    this.onChange();
  };
}
