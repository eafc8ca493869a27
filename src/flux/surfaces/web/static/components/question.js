// What an agent asks: approvals, inputs, elicitations, reviews of plans, pauses. Answered where it stands.

import { Component, html } from "../vendor/htm-preact.js";
import { Arguments } from "./tool.js";
import { shown } from "./text.js";

const ANSWERED = {
  approve: "Approved", reject: "Rejected", accept: "Accepted", decline: "Declined", cancel: "Cancelled", answer: "Answered",
};

export class Question extends Component {
  shouldComponentUpdate(next, state) {
    return next.item !== this.props.item || state !== this.state;
  }

  reply = async (reply) => {
    if (this.state.sending) return;
    this.setState({ sending: true, problem: null });
    try {
      await this.props.session.answer(this.props.item.data, reply);
    } catch (error) {
      const decided = error.type === "interrupt_decided";
      this.setState({ sending: false, problem: decided ? "This was answered elsewhere meanwhile." : error.message });
    }
  };

  render({ item }, { sending, problem }) {
    const Body = BODIES[item.type];
    if (item.answer || item.closed) return html`<${Answered} item=${item} />`;
    return html`<section class="question" tabindex="-1" role="group" aria-label=${titleOf(item)} data-question=${item.data.id}>
      <h3>${titleOf(item)}</h3>
      <fieldset disabled=${sending}><${Body} data=${item.data} reply=${this.reply} /></fieldset>
      ${problem && html`<p class="problem" role="alert">${problem}</p>`}
    </section>`;
  }
}

export function titleOf({ type, data }) {
  if (type === "approval_required") return `${data.agent || "The agent"} asks to call ${data.tool}`;
  if (type === "input_required") return data.question;
  if (type === "elicitation") return `${data.server_name || "A server"} asks`;
  if (type === "plan_review") return "A plan to review";
  return `Paused: ${data.name}`;
}

function Answered({ item }) {
  const { answer } = item;
  const word = answer ? `${ANSWERED[answer.decision] || answer.decision}${answer.always ? ", always" : ""}` : "Not answered";
  const said = answer && (answer.reason || (answer.content != null && item.type !== "plan_review" ? shown(answer.content) : ""));
  return html`<p class="answered"><span>${titleOf(item)}</span> <strong>${word}</strong>${said ? html`: <q>${said}</q>` : ""}</p>`;
}

// Two steps: the reason is asked for, and may be left out.
class Reject extends Component {
  componentDidUpdate(_, before) {
    if (this.state.open && !before.open) this.base.querySelector("input").focus();
  }

  key = (event) => {
    if (event.key !== "Escape") return;
    event.stopPropagation();
    this.setState({ open: false });
  };

  render({ reply, label = "Reject" }, { open, reason = "" }) {
    if (!open) return html`<button type="button" onClick=${() => this.setState({ open: true })}>${label}…</button>`;
    const send = (event) => { event?.preventDefault(); reply({ decision: "reject", reason: reason.trim() || null }); };
    return html`<form class="reason" onSubmit=${send} onKeyDown=${this.key}>
      <input value=${reason} placeholder="Reason (may be empty)" aria-label="Reason" onInput=${(e) => this.setState({ reason: e.target.value })} />
      <button class="danger">${label}</button>
    </form>`;
  }
}

const Approval = ({ data, reply }) => html`
  <${Arguments} args=${data.args} />
  ${data.reason && html`<p class="why">${data.reason}</p>`}
  <div class="actions">
    <button type="button" class="primary" onClick=${() => reply({ decision: "approve" })}>Approve</button>
    <button type="button" onClick=${() => reply({ decision: "approve", always: true })}
      title=${`${data.tool} is not asked about again in this session`}>Always</button>
    <${Reject} reply=${reply} />
  </div>`;

class Input extends Component {
  render({ data, reply, empty }, { text = "" }) {
    const send = (event) => {
      event.preventDefault();
      if (text.trim() || empty) reply({ decision: "answer", content: text.trim() || null });
    };
    return html`
      ${data.options?.length > 0 && html`<div class="actions options">${data.options.map((option) => html`
        <button type="button" key=${option} onClick=${() => reply({ decision: "answer", content: option })}>${option}</button>`)}</div>`}
      <form class="reason" onSubmit=${send}>
        <input value=${text} aria-label="Answer" onInput=${(event) => this.setState({ text: event.target.value })}
          placeholder=${data.options?.length ? "Or say it in your own words" : "Your answer"} />
        <button class="primary" disabled=${!text.trim() && !empty}>${empty ? "Continue" : "Answer"}</button>
      </form>`;
  }
}

const Pause = ({ data, reply }) => html`
  ${data.output != null && html`<pre class="quoted">${shown(data.output)}</pre>`}
  <${Input} data=${{}} reply=${reply} empty />`;

// The address is shown in full and opened only by the person's click.
function Elicitation({ data, reply }) {
  if (!data.url) return html`<${Form} data=${data} reply=${reply} />`;
  const web = /^https?:\/\//i.test(data.url);
  return html`
    <p>${data.message}</p>
    <p class="address">${data.url}</p>
    ${!web && html`<p class="problem">This is no web address, so it cannot be opened from here.</p>`}
    <div class="actions">
      ${web && html`<a class="button primary" href=${data.url} target="_blank" rel="noopener noreferrer"
        onClick=${() => reply({ decision: "accept" })}>Open and continue</a>`}
      <button type="button" onClick=${() => reply({ decision: "decline" })}>Decline</button>
    </div>`;
}

class Form extends Component {
  send = (event) => {
    event.preventDefault();
    const content = {};
    for (const [name, field] of Object.entries(this.props.data.schema?.properties || {})) {
      const input = event.target.elements[`field-${name}`];
      if (field.type === "boolean") content[name] = input.checked;
      else if (input.value !== "") {
        content[name] = ["integer", "number"].includes(field.type) ? Number(input.value) : input.value;
      }
    }
    this.props.reply({ decision: "accept", content });
  };

  render({ data, reply }) {
    const needed = new Set(data.schema?.required || []);
    return html`<p>${data.message}</p>
      <form class="fields" onSubmit=${this.send}>
        ${Object.entries(data.schema?.properties || {}).map(([name, field]) => html`<label key=${name} class=${field.type === "boolean" ? "check" : ""}>
          ${field.type === "boolean" && html`<${Field} name=${`field-${name}`} field=${field} />`}
          <span>${field.title || name}${needed.has(name) ? " *" : ""}</span>
          ${field.type !== "boolean" && html`<${Field} name=${`field-${name}`} field=${field} needed=${needed.has(name)} />`}
          ${field.description && html`<small>${field.description}</small>`}
        </label>`)}
        <div class="actions"><button class="primary">Send</button>
          <button type="button" onClick=${() => reply({ decision: "decline" })}>Decline</button></div>
      </form>`;
  }
}

function Field({ name, field, needed }) {
  if (field.type === "boolean") return html`<input type="checkbox" name=${name} checked=${!!field.default} />`;
  if (field.enum) {
    return html`<select name=${name} required=${needed}>
      ${!needed && html`<option value=""></option>`}
      ${field.enum.map((value, n) => html`<option key=${value} value=${value}>${field.enumNames?.[n] || value}</option>`)}</select>`;
  }
  const type = ["integer", "number"].includes(field.type) ? "number" : "text";
  return html`<input type=${type} step=${field.type === "number" ? "any" : undefined} name=${name} required=${needed}
    value=${field.default ?? ""} />`;
}

class Review extends Component {
  steps = () => this.state.steps || this.props.data.steps;

  edit(change) {
    const steps = this.steps().map((step) => ({ ...step }));
    change(steps);
    this.setState({ steps });
  }

  // What waited for a removed step waits for what that one waited for.
  remove(gone) {
    const steps = this.steps();
    const { name, depends_on: needed = [] } = steps[gone];
    this.setState({ steps: steps.filter((_, index) => index !== gone).map((step) => ({
      ...step,
      depends_on: [...new Set((step.depends_on || []).flatMap((other) => (other === name ? needed : [other])))],
    })) });
  }

  add = () => {
    const used = new Set(this.steps().map((step) => step.name));
    let number = this.steps().length + 1;
    while (used.has(`step ${number}`)) number += 1;
    this.edit((steps) => steps.push({ name: `step ${number}`, description: "", depends_on: [] }));
  };

  render({ data, reply }, { steps: edited, editing }) {
    const steps = this.steps();
    const fixed = (step) => step.state === "done" || step.state === "failed";
    const approve = () => reply({ decision: "approve", content: edited ? { steps: edited } : null });
    return html`<ol class="plan">${steps.map((step, index) => html`<li key=${step.name} class=${step.state || "pending"}>
        ${editing && !fixed(step)
          ? html`<span class="reason"><input value=${step.description || ""} placeholder=${step.name} aria-label=${`Step ${index + 1}: ${step.name}`}
              onInput=${(event) => this.edit((all) => { all[index].description = event.target.value; })} />
              <button type="button" aria-label=${`Remove step ${index + 1}`} onClick=${() => this.remove(index)}>✕</button></span>`
          : html`<b>${step.name}</b>${step.description ? html` <span>${step.description}</span>` : ""}`}
      </li>`)}</ol>
      <div class="actions">
        <button type="button" class="primary" onClick=${approve}>${edited ? "Approve as edited" : "Approve"}</button>
        ${editing
          ? html`<button type="button" onClick=${this.add}>Add a step</button>`
          : data.plan ? null /* a typed plan is taken as it is, or not at all */
          : html`<button type="button" onClick=${() => this.setState({ editing: true })}>Edit</button>`}
        <${Reject} reply=${reply} />
      </div>`;
  }
}

const BODIES = {
  approval_required: Approval, input_required: Input, elicitation: Elicitation, plan_review: Review, pause: Pause,
};
