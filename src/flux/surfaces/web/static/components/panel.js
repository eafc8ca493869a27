// Beside the conversation: the plan, and what sub-agents do.

import { html } from "../vendor/htm-preact.js";

const STATES = { pending: "to do", running: "in work", done: "done", failed: "failed" };
const SIGNS = { pending: "○", running: "●", done: "✓", failed: "✕" };

export function Panel({ state }) {
  const children = Object.values(state.children);
  if (!state.plan?.length && !children.length) return null;
  const done = (state.plan || []).filter((step) => step.state === "done").length;
  const wide = matchMedia("(min-width: 1151px)").matches;
  const now = (state.plan || []).find((step) => step.state === "running");
  return html`<aside class="panel" aria-label="Plan and sub-agents">
    ${state.plan?.length > 0 && html`<details open=${wide} class="plan-panel">
      <summary>Plan <small>${done} of ${state.plan.length}${now && !wide ? ` · ${now.name}` : ""}</small></summary>
      <ol class="plan steps">${state.plan.map((step) => html`<li key=${step.name} class=${step.state || "pending"}
        title=${[step.description, step.result, step.reason].filter(Boolean).join("\n")}>
        <i aria-hidden="true">${SIGNS[step.state] || SIGNS.pending}</i>
        <span>${step.name}<span class="unseen">, ${STATES[step.state] || STATES.pending}</span></span></li>`)}</ol></details>`}
    ${children.length > 0 && html`<details open=${wide} class="children"><summary>Sub-agents <small>${children.length}</small></summary>
      <ul>${children.map((child) => html`<li key=${child.id} class=${child.status}>
        <a href=${`#/s/${child.id}`}>${child.agent || "Sub-agent"}</a> <small>${child.status}</small>
        ${child.status === "started" && child.text && html`<p>${child.text.slice(-240)}</p>`}</li>`)}</ul></details>`}
  </aside>`;
}
