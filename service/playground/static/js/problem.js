// An error, over the page so that nothing moves when it comes, and the key that may end it.
import { connect } from "./connect.js";
import { html } from "./dom.js";
import { set, state } from "./state.js";

const NONE = { error: "", asksKey: false };

export function Problem() {
  return html`<div role="alert" class="problem">
    ${state.error &&
    html`<div class="error">
      <span>${state.error}</span>
      <button class="small" aria-label="Dismiss" onClick=${() => set(NONE)}>✕</button>
      ${state.asksKey &&
      html`<form onSubmit=${give}>
        <input type="password" name="key" aria-label="API key" autocomplete="off" required />
        <button>Use this key</button>
        <small>It stays in this tab, until the tab is closed.</small>
      </form>`}
    </div>`}
  </div>`;
}

function give(event) {
  event.preventDefault();
  const key = event.target.elements.key.value;
  sessionStorage.setItem("sensefield-key", key);
  set({ key, ...NONE });
  connect();
}
