// The sessions of this agent: found by words, resumed by a click.

import { Component, html } from "../vendor/htm-preact.js";
import { ago } from "./text.js";

const DOTS = { running: "working", scheduled: "working", waiting: "waiting", ended: "ended", idle: "idle" };
const WAITS = { approval: "waits for approval", input: "waits for an answer" };

export class Sidebar extends Component {
  search = (event) => this.props.list.search(event.target.value);

  render({ list, current, agent, open, onClose }) {
    return html`<aside class=${`sidebar ${open ? "open" : ""}`} aria-label="Sessions" id="sessions">
      <header><strong>${agent || "Flux"}</strong>
        <a class="button new" href="#/" onClick=${onClose}>New chat</a></header>
      <input type="search" placeholder="Search sessions" aria-label="Search sessions" onInput=${this.search} />
      <nav aria-label="Sessions"><ul>
        ${list.items.map((row) => html`<${Row} key=${row.id} row=${row} current=${row.id === current} onClose=${onClose} />`)}
      </ul>
      ${!list.items.length && html`<p class="none">${list.problem || (list.loaded ? (list.q ? "Nothing found." : "No sessions yet.") : "")}</p>`}
      ${list.next && html`<button type="button" class="older" onClick=${() => list.more()}>More</button>`}
      </nav>
    </aside>`;
  }
}

const Row = ({ row, current, onClose }) => html`<li><a href=${`#/s/${row.id}`} aria-current=${current ? "page" : undefined} onClick=${onClose}>
  <span class="title">${row.title || "Untitled"}</span>
  <span class="meta"><i class=${`dot ${DOTS[row.state] || "idle"}`}></i>${row.state === "waiting"
    ? WAITS[row.waiting_for] || "waits for you" : DOTS[row.state] === "working" ? "working" : ago(row.updated_at)}</span>
</a></li>`;
