// What a session shows, as a pure function of its events. Nothing in here touches the page or the network.
//
// An event is {type, data, id?}: an entry of the log (data.seq is its number) or a delta, a piece of one to come.

const QUESTIONS = new Set(["approval_required", "input_required", "elicitation", "plan_review", "pause"]);
const ENDS = new Set(["chat_response", "compact_done", "error", "cancelled"]);
const ENDINGS = {
  user_exit: "This session was ended.",
  completed: "This session has ended.",
  max_turns: "This session has ended: it had as many turns as it may have.",
  error: "This session has ended because of the error.",
};
const MOST_OUTPUT = 100_000; // characters of a running tool's output that are kept

export const empty = () => ({
  seq: 0,
  items: [],
  said: {}, // messages that no run has consumed: id -> {text, mode}
  run: null,
  open: [], // ids of open questions
  plan: null,
  children: {},
  spent: { tokens: 0, cost: 0 },
  ended: null,
  failed: null, // how the last run ended, if not well
  lastText: "",
  lastUser: "",
});

// The state after more events; the one before is left as it is.
export function reduce(before, events) {
  const state = {
    ...before,
    items: before.items.slice(),
    said: { ...before.said },
    open: before.open.slice(),
  };
  const draft = new Draft(state);
  for (const event of events) draft.feed(event);
  return state;
}

// The state of a part of a log. Unless it is `complete`, it begins with the first run whose messages are known.
export function fold(entries, complete) {
  const events = entries.map((data) => ({ type: data.type, data }));
  const begin = complete ? 0 : Math.max(0, firstRun(entries));
  const state = reduce(empty(), events.slice(0, begin));
  state.items = [];
  return reduce(state, events.slice(begin));
}

export function firstRun(entries) {
  const known = new Set();
  return entries.findIndex((entry) => {
    if (entry.type === "user_message") known.add(entry.id);
    return entry.type === "run_started" && entry.inputs.every((id) => known.has(id));
  });
}

// A state folded anew, with what was shown meanwhile of entries to come.
export function carryOver(fresh, shown) {
  const state = { ...fresh, spent: shown.spent, items: fresh.items.slice() };
  const places = new Map(state.items.map((item, index) => [item.key, index]));
  for (const item of shown.items) {
    const place = places.get(item.key);
    if (place === undefined && item.kind === "assistant" && !item.done) state.items.push(item);
    else if (place !== undefined && item.kind === "tool" && item.output) state.items[place] = item;
  }
  return state;
}

export function status(state) {
  if (state.ended) return "ended";
  if (state.open.length) return "waiting";
  return state.run || Object.keys(state.said).length ? "working" : "idle";
}

const textOf = (parts) => (parts || []).filter((part) => part.type === "text").map((part) => part.text).join("");
// What stands beside a text, in words.
const besideOf = (parts) => (parts || []).filter((part) => part.type === "image" || part.type === "file")
  .map((part) => part.name || "an image").join(", ");
const reasoningOf = (parts) =>
  (parts || []).filter((part) => part.type === "reasoning").map((part) => part.text).join("\n\n");

class Draft {
  constructor(state) {
    this.state = state;
    this.places = null;
  }

  feed({ type, data, id }) {
    const { state } = this;
    if (data.seq !== undefined) {
      if (data.seq <= state.seq) return;
      state.seq = data.seq;
    }
    if (QUESTIONS.has(type)) this.asked(type, data);
    else this[`on_${type}`]?.(data, (id || "").split(".")[1]);
    if (ENDS.has(type)) this.rest();
  }

  // --- items

  place(key) {
    this.places ??= new Map(this.state.items.map((item, index) => [item.key, index]));
    return this.places.get(key);
  }

  get(key) {
    const place = this.place(key);
    return place === undefined ? undefined : this.state.items[place];
  }

  put(item, beforeKey) {
    const place = this.place(item.key);
    const { items } = this.state;
    if (place !== undefined) items[place] = item;
    else if (beforeKey !== undefined && this.place(beforeKey) !== undefined) {
      items.splice(this.place(beforeKey), 0, item);
      this.places = null;
    } else {
      this.places.set(item.key, items.length);
      items.push(item);
    }
  }

  change(key, fields) {
    const item = this.get(key);
    if (item) this.put({ ...item, ...fields });
  }

  drop(key) {
    const place = this.place(key);
    if (place === undefined) return;
    this.state.items.splice(place, 1);
    this.places = null;
  }

  note(key, text, tone = "quiet") {
    this.put({ key, kind: "note", text, tone });
  }

  // `cut`: the last seq in front of the message, and of what was still going on when it came.
  consume(ids, seq, fields = {}, beforeKey) {
    for (const id of ids || []) {
      const said = this.state.said[id];
      if (!said) continue;
      delete this.state.said[id];
      this.state.lastUser = said.text;
      const cut = (said.behind ? seq : said.seq) - 1;
      this.put({ key: `u-${id}`, kind: "user", text: said.text, beside: said.beside, seq: said.seq, cut,
                 ...fields }, beforeKey);
    }
  }

  // --- messages

  on_user_message(data) {
    const said = { id: data.id, text: textOf(data.parts), beside: besideOf(data.parts), mode: data.mode, seq: data.seq,
                   behind: !!this.state.run };
    this.state.said[data.id] = said;
  }

  on_run_started(data) {
    Object.assign(this.state, { run: data.run, failed: null, lastText: "" });
    this.consume(data.inputs, data.seq);
  }

  // The item of an answer to come. A new attempt, or the same one in the hands of another process, begins anew.
  answer({ message_id: id, attempt }, epoch) {
    const key = `a-${id}`;
    const item = this.get(key);
    if (item && (item.done || (item.attempt === attempt && item.epoch === epoch && !item.failed))) return item;
    if (!item) this.dropUnfinished();
    const fresh = { key, kind: "assistant", id, attempt, epoch, text: "", reasoning: "", done: false };
    this.put(fresh);
    return fresh;
  }

  dropUnfinished() {
    const left = this.state.items.filter((item) => item.kind === "assistant" && !item.done);
    for (const item of left) this.drop(item.key);
  }

  on_token(data, epoch) {
    const item = this.answer(data, epoch);
    if (!item.done) this.change(item.key, { text: item.text + data.text });
  }

  on_reasoning(data, epoch) {
    const item = this.answer(data, epoch);
    if (!item.done) this.change(item.key, { reasoning: item.reasoning + data.text });
  }

  on_model_failed(data) {
    if (data.retry_at == null) return;
    const key = `a-${data.message_id}`;
    const item = this.get(key) || { key, kind: "assistant", id: data.message_id, text: "", reasoning: "", done: false };
    this.put({ ...item, attempt: data.attempt, failed: { error: data.error, at: data.retry_at, next: data.attempt + 1 } });
  }

  on_assistant_message(data) {
    const key = `a-${data.message_id}`;
    if (!this.get(key)) this.dropUnfinished();
    this.consume(data.inputs, data.seq, {}, key);
    this.spend(data.usage, data.cost);
    const [text, reasoning] = [textOf(data.parts), reasoningOf(data.parts)];
    this.state.lastText = text;
    if (text || reasoning) {
      const before = this.get(key);
      this.put({ ...before, key, kind: "assistant", id: data.message_id, text, reasoning, done: true, failed: null,
                 stop: data.stop, model: data.model, seq: data.seq });
    } else this.drop(key);
    for (const call of data.calls || []) {
      this.put({ key: `t-${call.id}`, kind: "tool", id: call.id, name: call.name, args: call.args || {},
                 invalid: call.invalid, state: "pending", output: "" });
    }
  }

  on_chat_response(data) {
    if (data.content && data.content !== this.state.lastText) {
      this.put({ key: `r-${data.seq}`, kind: "assistant", id: `r-${data.seq}`, text: data.content, reasoning: "",
                 done: true, seq: data.seq });
    }
  }

  on_error(data) {
    this.state.failed = { message: data.message, retryable: !!data.retryable };
    this.put({ key: `e-${data.seq}`, kind: "failed", text: data.message, seq: data.seq });
  }

  on_cancelled(data) {
    this.consume(data.inputs, data.seq, { unread: true });
    this.state.failed = { message: "", retryable: true };
    this.note(`n-${data.seq}`, "Stopped.");
  }

  on_cancel_requested() {
    this.state.stopping = true;
  }

  on_session_end(data) {
    this.state.ended = data.reason || "ended";
    this.state.said = {};
    this.rest();
    this.note(`n-${data.seq}`, ENDINGS[data.reason] || `This session has ended (${data.reason}).`);
  }

  // The run is over: nothing of it is to come, and nobody waits for an answer.
  rest() {
    const { state } = this;
    Object.assign(state, { run: null, stopping: false, open: [] });
    this.dropUnfinished();
    state.items.forEach((item, index) => {
      if (item.kind === "question" && !item.answer && !item.closed) state.items[index] = { ...item, closed: true };
      if (item.kind === "tool" && ["pending", "running", "waiting"].includes(item.state)) {
        state.items[index] = { ...item, state: "interrupted" };
      }
    });
  }

  // --- tools

  tool(id, name) {
    return this.get(`t-${id}`) ||
      { key: `t-${id}`, kind: "tool", id, name: name || "tool", args: null, state: "pending", output: "" };
  }

  on_gate(data) {
    if (data.args) this.put({ ...this.tool(data.call), args: data.args });
  }

  on_tool_start(data) {
    this.put({ ...this.tool(data.call, data.name), name: data.name, state: "running", output: "" });
  }

  on_tool_waiting(data) {
    this.change(`t-${data.call}`, { state: "waiting" });
  }

  on_tool_output(data) {
    const tool = this.tool(data.call);
    this.put({ ...tool, output: (tool.output + data.text).slice(-MOST_OUTPUT) });
  }

  on_progress(data) {
    if (this.get(`t-${data.call}`)) this.change(`t-${data.call}`, { progress: data.value });
  }

  on_tool_done(data) {
    this.put({ ...this.tool(data.call, data.name), name: data.name, state: data.outcome, content: data.content,
               artifact: data.artifact, output: "", progress: undefined });
    for (const id of this.state.open) {
      const asked = this.get(`q-${id}`);
      if (asked && asked.data.call === data.call) this.closeQuestion(id, { closed: true });
    }
  }

  // --- questions

  asked(type, data) {
    if (type === "pause" && (data.due != null || data.on)) return; // it goes on by itself
    this.put({ key: `q-${data.id}`, kind: "question", type, data });
    this.state.open = [...this.state.open.filter((id) => id !== data.id), data.id];
    if (this.get(`t-${data.call}`)) this.change(`t-${data.call}`, { state: "waiting" });
  }

  on_interrupt_answered(data) {
    this.closeQuestion(data.id, { answer: data });
  }

  closeQuestion(id, fields) {
    this.state.open = this.state.open.filter((open) => open !== id);
    this.change(`q-${id}`, fields);
  }

  // --- beside

  on_plan(data) {
    this.state.plan = data.steps;
  }

  on_subagent(data) {
    const before = this.state.children[data.child] || { text: "" };
    this.child({ ...before, id: data.child, agent: data.agent, status: data.status, call: data.call });
  }

  child(changed) {
    this.state.children = { ...this.state.children, [changed.id]: changed };
  }

  on_subagent_delta(data) {
    const child = this.state.children[data.session] || { id: data.session, agent: "", status: "started", call: data.call, text: "" };
    const { event } = data;
    if (event.type === "subagent_delta") {
      this.on_subagent_delta(event);
      return;
    }
    const fresh = event.message_id && event.message_id !== child.message ? "" : child.text;
    const piece = event.type === "reasoning" ? "" : event.text || "";
    this.child({ ...child, message: event.message_id || child.message, text: (fresh + piece).slice(-2000) });
  }

  on_compaction(data) {
    this.spend(data.usage, data.cost);
    this.note(`n-${data.seq}`, "Earlier messages were summarised for the model.");
  }

  on_compact_done(data) {
    if (data.compacted === false) this.note(`n-${data.seq}`, "There is nothing to summarise yet.");
  }

  on_usage(data) {
    this.spend(data.tokens, data.cost);
  }

  // What was open where it was cut is not open here.
  on_forked(data) {
    Object.assign(this.state, { said: {}, failed: null });
    for (const child of Object.values(this.state.children)) {
      if (["started", "waiting"].includes(child.status)) this.child({ ...child, status: "cancelled" });
    }
    this.put({ key: `n-${data.seq}`, kind: "note", tone: "quiet", text: "Forked from", session: data.from });
  }

  spend(usage, cost) {
    const { spent } = this.state;
    const tokens = (usage?.input || 0) + (usage?.output || 0);
    this.state.spent = { tokens: spent.tokens + tokens, cost: spent.cost + (cost || 0) };
  }
}
