// A tool call: one line that opens to its arguments, what it printed, and how it really ended.

import { Component, html } from "../vendor/htm-preact.js";
import { api } from "../api.js";
import { shown } from "./text.js";

const WORDS = {
  pending: "to come", running: "running", waiting: "waits", success: "done", error: "failed", denied: "denied",
  cancelled: "cancelled", interrupted: "interrupted", timeout: "timed out", expired: "expired",
};
const SIGNS = { pending: "·", waiting: "…", success: "✓", error: "✕", denied: "⊘", cancelled: "⊘", interrupted: "!", timeout: "!", expired: "!" };
const MOST_SHOWN = 50_000;

export class Tool extends Component {
  shouldComponentUpdate(next, state) {
    return next.item !== this.props.item || next.child !== this.props.child || state.open !== this.state.open;
  }

  toggle = (event) => this.setState({ open: event.currentTarget.open });

  render({ item, child, session }, { open }) {
    return html`<details class=${`tool ${item.state}`} onToggle=${this.toggle} open=${open}>
      <summary>
        <span class="sign" aria-hidden="true">${SIGNS[item.state] || html`<i class="spin"></i>`}</span>
        <span class="name">${item.name}</span>
        <span class="brief">${brief(item)}</span>
        <span class="outcome">${WORDS[item.state] || item.state}</span>
      </summary>
      ${open && html`<div class="inside">
        ${item.invalid && html`<${Part} title="Arguments that are not JSON" text=${item.invalid} />`}
        <${Arguments} args=${item.args} />
        ${item.progress !== undefined && html`<${Part} title="Progress" text=${shown(item.progress)} />`}
        ${item.output && html`<${Part} title="Output so far" text=${item.output} />`}
        ${item.content !== undefined && html`<${Part} title="Result" text=${item.content || "(nothing)"} />`}
        ${item.artifact && html`<a class="file" href=${api.artifact(session, item.artifact)} download>Save the whole result</a>`}
      </div>`}
      ${child && html`<${Child} child=${child} />`}
    </details>`;
  }
}

const Child = ({ child }) => html`<p class="child"><a href=${`#/s/${child.id}`}>${child.agent || "Sub-agent"}</a>
  ${" "}${child.status}</p>`;

function brief(item) {
  if (!item.args) return "";
  return Object.values(item.args).map((value) => (typeof value === "string" ? value : JSON.stringify(value)))
    .join(", ").replace(/\s+/g, " ").slice(0, 160);
}

export function Arguments({ args }) {
  const given = Object.entries(args || {});
  if (!given.length) return null;
  return html`<dl class="args">${given.map(([name, value]) => html`<div key=${name}>
    <dt>${name}</dt><dd><pre tabindex="0">${shown(value)}</pre></dd>
  </div>`)}</dl>`;
}

class Part extends Component {
  render({ title, text }, { whole }) {
    const cut = !whole && text.length > MOST_SHOWN;
    return html`<section class="part"><h4>${title}</h4>
      <pre tabindex="0">${cut ? text.slice(0, MOST_SHOWN) : text}</pre>
      ${cut && html`<button type="button" class="link" onClick=${() => this.setState({ whole: true })}>
        Show all ${text.length.toLocaleString()} characters</button>`}
    </section>`;
  }
}
