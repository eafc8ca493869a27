// The conversation: items in chunks that are drawn again only where something changed, kept at the end while one reads there.

import { Component, html } from "../vendor/htm-preact.js";
import { Question } from "./question.js";
import { Markdown } from "./text.js";
import { Tool } from "./tool.js";

const CHUNK = 40;
const NEAR_PX = 60;
const STOPS = {
  length: "The answer was cut: it reached the model's output limit.",
  content_filter: "The provider's content filter stopped the answer.",
};

export class Conversation extends Component {
  stick = true;

  componentDidMount() {
    this.scroller = this.base;
    this.content = this.base.firstElementChild;
    this.watch = new ResizeObserver(() => this.keep());
    this.watch.observe(this.content);
    this.keep();
    this.meet(this.props.session);
  }

  componentWillUnmount() {
    this.watch.disconnect();
  }

  componentDidUpdate(before) {
    const { session } = this.props;
    if (session !== before.session) this.stick = true;
    if (this.anchor && !session.readingBack) {
      this.scroller.scrollTop += this.scroller.scrollHeight - this.anchor;
      this.anchor = null;
    }
    this.keep();
    this.meet(session);
  }

  keep() {
    if (this.stick) this.scroller.scrollTop = this.scroller.scrollHeight;
  }

  // A new question gets the focus, unless the person is busy with something else.
  meet(session) {
    const [asked] = session.state.open;
    if (asked === this.met) return;
    this.met = asked;
    if (!asked) return;
    const busy = document.activeElement?.matches("textarea, input") && document.activeElement.value;
    if (!busy) this.base.querySelector(`[data-question="${CSS.escape(asked)}"]`)?.focus({ preventScroll: true });
  }

  onScroll = () => {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    const stick = scrollHeight - scrollTop - clientHeight < NEAR_PX;
    if (stick !== this.stick) {
      this.stick = stick;
      this.setState({ away: !stick });
    }
  };

  toEnd = () => {
    this.stick = true;
    this.setState({ away: false });
    this.keep();
  };

  older = () => {
    this.anchor = this.scroller.scrollHeight;
    this.stick = false;
    this.props.session.older();
  };

  render({ session, onFork }, { away }) {
    const { state } = session;
    const chunks = [];
    for (let from = 0; from < state.items.length; from += CHUNK) {
      chunks.push(html`<${Chunk} key=${from} items=${state.items.slice(from, from + CHUNK)} session=${session}
        children_=${state.children} onFork=${onFork} />`);
    }
    const waits = Object.values(state.said);
    return html`<main class="conversation" onScroll=${this.onScroll}>
      <div class="column" role="log" aria-label="Conversation">
        ${session.more && html`<button type="button" class="older" onClick=${this.older} disabled=${session.readingBack}>
          ${session.readingBack ? "Loading…" : "Earlier messages"}</button>`}
        ${chunks}
        ${waits.map((said) => html`<article key=${said.id} class="said waiting"><p>${said.text}</p>
          <small>${session.state.run ? "queued" : ""}</small></article>`)}
        ${session.outbox.map((sent) => html`<article key=${sent.key} class=${`said waiting ${sent.state}`}><p>${sent.text}</p>
          ${sent.state === "failed" ? html`<small role="alert">Not sent: ${sent.error}
            <button type="button" class="link" onClick=${() => session.again(sent)}>Send again</button>
            <button type="button" class="link" onClick=${() => session.remove(sent)}>Discard</button></small>`
            : html`<small>sending…</small>`}</article>`)}
        <${Tail} session=${session} onFork=${onFork} />
      </div>
      ${away && html`<button type="button" class="to-end" onClick=${this.toEnd} aria-label="To the end">↓</button>`}
    </main>`;
  }
}

// What the session is doing, where nothing else shows it.
function Tail({ session, onFork }) {
  const { state, status } = session;
  const last = state.items.at(-1);
  const shows = last && ((last.kind === "assistant" && !last.done && last.text) || (last.kind === "tool" && last.state === "running"));
  if (status === "working" && !shows) {
    return html`<p class="working" role="status"><i class="spin"></i> ${state.stopping ? "Stopping…" : "Working…"}</p>`;
  }
  if (status === "ended" && onFork) {
    return html`<p class="retry"><button type="button" onClick=${() => onFork({ text: "" })}>Go on in a copy</button></p>`;
  }
  if (status === "idle" && state.failed && state.lastUser) {
    return html`<p class="retry"><button type="button" onClick=${() => session.send(state.lastUser)}>Try again</button></p>`;
  }
  return null;
}

class Chunk extends Component {
  shouldComponentUpdate(next) {
    return next.children_ !== this.props.children_ || next.session !== this.props.session || next.onFork !== this.props.onFork ||
      next.items.length !== this.props.items.length || next.items.some((item, index) => item !== this.props.items[index]);
  }

  render({ items, session, children_, onFork }) {
    return html`<div class="chunk">${items.map((item) => html`<${Item} key=${item.key} item=${item} session=${session}
      onFork=${onFork} child=${item.kind === "tool" ? Object.values(children_).find((child) => child.call === item.id) : null} />`)}</div>`;
  }
}

class Item extends Component {
  shouldComponentUpdate(next) {
    return next.item !== this.props.item || next.child !== this.props.child || next.onFork !== this.props.onFork;
  }

  render({ item, session, child, onFork }) {
    if (item.kind === "user") return html`<${Said} item=${item} onFork=${onFork} />`;
    if (item.kind === "assistant") return html`<${Answer} item=${item} />`;
    if (item.kind === "tool") return html`<${Tool} item=${item} child=${child} session=${session.id} />`;
    if (item.kind === "question") return html`<${Question} item=${item} session=${session} />`;
    if (item.kind === "failed") return html`<p class="failed" role="alert">${item.text}</p>`;
    return html`<p class="note">${item.text}${item.session ? html` <a href=${`#/s/${item.session}`}>another session</a>` : ""}</p>`;
  }
}

const Said = ({ item, onFork }) => html`<article class="said">
  <p>${item.text}</p>
  ${item.beside && html`<small>with ${item.beside}</small>`}
  ${item.unread && html`<small>stopped before it was read</small>`}
  ${onFork && html`<button type="button" class="fork" title="Go on from before this message in a new session"
    onClick=${() => onFork(item)}>Fork</button>`}
</article>`;

const Answer = ({ item }) => html`<article class=${`answer ${item.done ? "" : "growing"}`} aria-busy=${!item.done}>
  ${item.reasoning && html`<${Thought} text=${item.reasoning} growing=${!item.done && !item.text} />`}
  ${item.text && html`<${Markdown} text=${item.text} done=${item.done} />`}
  ${item.failed && html`<p class="note">${firstLine(item.failed.error)}; trying again (attempt ${item.failed.next})</p>`}
  ${STOPS[item.stop] && html`<p class="note">${STOPS[item.stop]}</p>`}
</article>`;

class Thought extends Component {
  render({ text, growing }, { open }) {
    return html`<details class="thought" onToggle=${(event) => this.setState({ open: event.currentTarget.open })}>
      <summary>${growing ? html`<i class="spin"></i> Thinking…` : "Thoughts"}</summary>${open && html`<p>${text}</p>`}</details>`;
  }
}

const firstLine = (text) => text.trim().split("\n")[0].slice(0, 200);
