// Where one writes. Enter sends, Shift+Enter begins a line, Esc stops the run.

import { Component, html } from "../vendor/htm-preact.js";

const MODES = {
  queue: "Next: answered after this run",
  steer: "Now: joins this run",
  interrupt: "Instead: stops this run",
};

export class Composer extends Component {
  componentDidMount() {
    this.area = this.base.querySelector("textarea");
    if (matchMedia("(pointer: fine)").matches) this.area.focus();
  }

  componentDidUpdate(before) {
    if (before.draft !== this.props.draft) {
      this.area.value = this.props.draft.text;
      this.grow();
    }
    if (before.place !== this.props.place) {
      this.setState({ mode: "queue" });
      if (matchMedia("(pointer: fine)").matches) this.area.focus();
    }
  }

  grow = () => {
    this.area.style.height = "auto";
    this.area.style.height = `${Math.min(this.area.scrollHeight, innerHeight * 0.4)}px`;
    const empty = !this.area.value.trim();
    if (empty !== (this.state.empty ?? true)) this.setState({ empty });
  };

  key = (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    this.submit();
  };

  submit = async (event) => {
    event?.preventDefault();
    const text = this.area.value;
    if (!text.trim() || this.props.disabled) return;
    this.area.value = "";
    this.grow();
    const taken = await this.props.onSend(text, this.props.working ? this.state.mode || "queue" : "queue");
    if (taken === false && !this.area.value) {
      this.area.value = text;
      this.grow();
    }
  };

  render({ working, disabled, ended, onStop, stopping }, { empty = true, mode = "queue" }) {
    return html`<form class="composer" onSubmit=${this.submit}>
      <div class="box">
        <textarea rows="1" aria-label="Message" placeholder=${ended ? "This session has ended" : "Message"} disabled=${ended}
          onInput=${this.grow} onKeyDown=${this.key} enterkeyhint="send"></textarea>
        ${working && !empty && html`<select aria-label="When it is read" value=${mode}
          onChange=${(event) => this.setState({ mode: event.target.value })}>
          ${Object.entries(MODES).map(([name, words]) => html`<option key=${name} value=${name}>${words}</option>`)}</select>`}
        ${working && html`<button type="button" class="stop" onClick=${onStop} disabled=${stopping} title="Stop (Esc)">
          <i aria-hidden="true"></i><span>Stop</span></button>`}
        ${(!working || !empty) && html`<button class="primary send" disabled=${empty || disabled || ended} title="Send (Enter)">Send</button>`}
      </div>
    </form>`;
  }
}
