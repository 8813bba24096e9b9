// One lane: its tokens as a strip of coloured text, along which arrow keys walk.
import { Component, html } from "./dom.js";
import { MEASURES } from "./measures.js";
import { isRunning, leaveBranch } from "./run.js";
import { choose, selection } from "./selection.js";
import { state } from "./state.js";
import { exactly } from "./tooltip.js";
import { shown, spoken } from "./whitespace.js";

const TITLES = { baseline: "Without control", controlled: "With control" };
const OTHER = { baseline: "controlled", controlled: "baseline" };

class Token extends Component {
  shouldComponentUpdate(next) {
    return Object.keys(next).some((name) => next[name] !== this.props[name]);
  }

  componentDidUpdate(before) {
    const focused = ["option", "listbox"].includes(document.activeElement?.role);
    if (this.props.chosen && !before.chosen && focused) {
      this.element.focus({ preventScroll: true });
      this.element.scrollIntoView({ block: "nearest" });
    }
  }

  render({ token, at, measure, chosen, parts, forced }) {
    const { label, value, share, show } = MEASURES[measure];
    const known = value(token) !== null;
    const told = `${label} ${known ? show(value(token)) : "not known"}`;
    const marks = [parts && "the texts part here", forced && "forced"].filter(Boolean);
    return html`<span
      ref=${(element) => (this.element = element)}
      role="option"
      class=${["token", !known && "unknown", parts && "parts", forced && "forced"].filter(Boolean).join(" ")}
      aria-selected=${chosen}
      aria-label=${[spoken(token.text), told, ...marks].join(", ")}
      tabindex=${chosen ? 0 : -1}
      title=${exactly(token)}
      data-at=${at}
      style=${{ "--share": share(value(token)).toFixed(3) }}
      >${shown(token.text, html`<br />`)}</span
    >`;
  }
}

export function Strip({ lane, parts }) {
  const trace = state.lanes[lane];
  const tokens = trace?.tokens ?? [];
  const selected = selection();
  const chosenAt = selected.lane === lane ? selected.at : -1;
  return html`<section class="lane" aria-label=${TITLES[lane]}>
    <header>
      <h3>${TITLES[lane]}</h3>
      <span class="quiet">${status(lane, trace)}</span>
      ${trace?.branch?.parent &&
      html`<button class="small" onClick=${() => leaveBranch(lane)}>Undo the branch</button>`}
    </header>
    <${Scroll} running=${isRunning(lane)} count=${tokens.length}>
      ${tokens.length > 0 &&
      html`<div
        role="listbox"
        aria-label=${`Tokens ${TITLES[lane].toLowerCase()}`}
        aria-orientation="horizontal"
        tabindex=${chosenAt < 0 ? 0 : -1}
        onClick=${(event) => walkTo(event, lane)}
        onKeyDown=${(event) => walk(event, lane)}
      >
        ${tokens.map(
          (token, at) =>
            html`<${Token}
              key=${at}
              token=${token}
              at=${at}
              measure=${state.colour}
              chosen=${at === chosenAt}
              parts=${at === parts}
              forced=${at === trace.branch?.at}
            />`,
        )}
      </div>`}
    <//>
  </section>`;
}

// The box that a strip scrolls in; it follows the tokens while they arrive.
class Scroll extends Component {
  componentDidUpdate(before) {
    const { running, count } = this.props;
    if (running && count > before.count) this.element.scrollTop = this.element.scrollHeight;
  }

  render({ children }) {
    return html`<div class="strip" ref=${(element) => (this.element = element)}>${children}</div>`;
  }
}

function status(lane, trace) {
  const count = trace ? `${trace.tokens.length} tokens` : "";
  if (isRunning(lane)) return `${count} …`;
  return trace?.finish === "length" ? `${count}, cut at the limit` : count;
}

function walkTo(event, lane) {
  const option = event.target.closest("[data-at]");
  if (!option) return;
  choose(lane, Number(option.dataset.at));
  option.focus({ preventScroll: true });
}

function walk(event, lane) {
  const { at } = selection();
  const last = state.lanes[lane].tokens.length - 1;
  const steps = {
    ArrowLeft: () => choose(lane, at - 1),
    ArrowRight: () => choose(lane, at + 1),
    ArrowUp: () => choose(OTHER[lane], at),
    ArrowDown: () => choose(OTHER[lane], at),
    Home: () => choose(lane, 0),
    End: () => choose(lane, last),
  };
  const step = steps[event.key];
  if (!step || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  step();
}
