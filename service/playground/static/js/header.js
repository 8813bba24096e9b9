// The head of the page: what is served, and what concerns the whole page.
import { LANGUAGES } from "./code.js";
import { html } from "./dom.js";
import { load, save } from "./files.js";
import { set, state } from "./state.js";

const THEMES = { auto: "system", light: "light", dark: "dark" };

export function Header() {
  return html`<header class="top">
    <h1><img src="icon.svg" alt="" width="28" height="28" />Sensefield <span>playground</span></h1>
    <p class="model">${state.model || state.connection}</p>
    <div class="buttons">
      ${Object.keys(LANGUAGES).map(
        (language) => html`<button onClick=${() => set({ language, copied: "" })}>As ${language}</button>`,
      )}
      <button disabled=${!state.lanes.baseline} onClick=${save}>Save</button>
      <label class="button">
        Load
        <input type="file" class="hidden" accept="application/json,.json" onChange=${open} />
      </label>
      <button aria-label=${`Theme: ${THEMES[state.theme]}`} onClick=${turn}>
        <span class="spacious">Theme: </span>${THEMES[state.theme]}
      </button>
    </div>
  </header>`;
}

function open(event) {
  const [file] = event.target.files;
  event.target.value = ""; // so that the same file can be opened again
  if (file) load(file);
}

function turn() {
  const names = Object.keys(THEMES);
  const theme = names[(names.indexOf(state.theme) + 1) % names.length];
  localStorage.setItem("sensefield-theme", theme);
  applyTheme(theme);
  set({ theme });
}

export function applyTheme(theme) {
  document.documentElement.dataset.theme = theme;
}
