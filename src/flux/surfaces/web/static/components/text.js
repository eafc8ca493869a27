// Text on the screen: growing Markdown, times, numbers.

import { Component, html } from "../vendor/htm-preact.js";
import { Growing } from "../markdown.js";

// Draws itself: the list around it never has to. A text that takes long to draw is drawn less often.
export class Markdown extends Component {
  shouldComponentUpdate(next) {
    this.draw(next.text, next.done);
    return false;
  }

  componentDidMount() {
    this.growing = new Growing(this.base);
    this.draw(this.props.text, this.props.done);
  }

  componentWillUnmount() {
    clearTimeout(this.timer);
  }

  draw(text, done) {
    this.wanted = [text, done];
    if (this.timer && !done) return;
    clearTimeout(this.timer);
    this.timer = null;
    const took = this.growing.draw(text, done);
    if (took > 6 && !done) {
      this.timer = setTimeout(() => {
        this.timer = null;
        this.draw(...this.wanted);
      }, took * 6);
    }
  }

  render() {
    return html`<div class="md"></div>`;
  }
}

export function ago(seconds) {
  const passed = Date.now() / 1000 - seconds;
  if (passed < 60) return "now";
  if (passed < 3600) return `${Math.floor(passed / 60)} min`;
  if (passed < 86400) return `${Math.floor(passed / 3600)} h`;
  return new Date(seconds * 1000).toLocaleDateString(undefined, { day: "numeric", month: "short" });
}

export function spentText({ tokens, cost }) {
  if (!tokens) return "";
  const count = tokens < 10_000 ? tokens.toLocaleString() : `${Math.round(tokens / 1000).toLocaleString()}k`;
  const money = cost ? ` · $${cost < 1 ? cost.toFixed(4) : cost.toFixed(2)}` : "";
  return `${count} tokens${money}`;
}

export const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value, null, 2));
