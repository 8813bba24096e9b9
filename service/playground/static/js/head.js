// The head of an entry: its kind, what it is about, and the button that removes it.
import { html } from "./dom.js";
import { remove } from "./entries.js";

// `at` is the place in a list; an entry that stands alone has none.
export function Head({ kind, name, at, children }) {
  const which = at === undefined ? kind : `${kind} ${at + 1}`;
  return html`<div class="head">
    <span class="kind">${name}</span>
    ${children}
    <button class="small" aria-label=${`Remove ${which}`} onClick=${() => remove(kind, at)}>✕</button>
  </div>`;
}
