// The request behind the chosen text, shown as code to copy.
import { LANGUAGES } from "./code.js";
import { Component, html } from "./dom.js";
import { controlOf, requestOf } from "./request.js";
import { set, state } from "./state.js";

const SENT = { baseline: "This was sent for the text without control.", controlled: "This was sent for the text with control." };

export class Dialog extends Component {
  componentDidMount() {
    this.element.showModal();
  }

  render({ language }) {
    const { request, told } = shownRequest();
    const text = LANGUAGES[language](request);
    return html`<dialog
      ref=${(element) => (this.element = element)}
      aria-labelledby="code"
      onClose=${() => set({ language: null })}
    >
      <header>
        <h2 id="code">The request as ${language}</h2>
        <button onClick=${() => copy(text, language)}>Copy</button>
        <button class="small" aria-label="Close" onClick=${() => this.element.close()}>✕</button>
      </header>
      <p class="quiet" role="status">${state.copied || told}</p>
      <pre tabindex="0" aria-label="Code">${text}</pre>
    </dialog>`;
  }
}

// Before anything was sent it is the request that Run would send.
function shownRequest() {
  const { lane } = state.selected;
  const sent = state.lanes[lane]?.request;
  if (sent) return { request: sent, told: SENT[lane] };
  const control = controlOf(state.setup.control);
  return { request: requestOf(state.model, state.setup, control), told: "Run sends this." };
}

async function copy(text, language) {
  try {
    await navigator.clipboard.writeText(text);
    set({ copied: `Copied as ${language}.` });
  } catch {
    set({ copied: "The browser lets only pages over https or on localhost use the clipboard." });
  }
}
