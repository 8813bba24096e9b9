// Entropy and KL along the tokens, as a chart that is also the handle to move along them.
import uPlot from "../vendor/uplot.js";
import { Component, html } from "./dom.js";
import { nats } from "./measures.js";
import { choose, selection } from "./selection.js";

const HEIGHT = 132;

export class Scrubber extends Component {
  componentDidMount() {
    this.watch = new ResizeObserver(() => this.fit());
    this.watch.observe(this.box);
    this.dark = matchMedia("(prefers-color-scheme: dark)");
    this.dark.addEventListener("change", this.remake);
    this.remake();
  }

  componentWillUnmount() {
    this.watch.disconnect();
    this.dark.removeEventListener("change", this.remake);
    this.chart?.destroy();
  }

  componentDidUpdate(before) {
    if (before.theme !== this.props.theme) this.remake();
    else this.update();
  }

  // A chart's colours are fixed when it is made.
  remake = () => {
    this.chart?.destroy();
    this.chart = new uPlot(options(this.box, () => selection().at), [[], [], []], this.box);
    this.update();
  };

  fit() {
    if (this.chart) this.chart.setSize({ width: this.box.clientWidth, height: HEIGHT });
  }

  update() {
    const { tokens } = this.props;
    this.chart.setData([
      tokens.map((_, at) => at + 1),
      tokens.map((token) => token.controlled.entropy),
      tokens.map((token) => token.kl),
    ]);
  }

  render({ lane, tokens, at }) {
    const slide = (event) => choose(lane, Number(event.target.value) - 1);
    const pick = (event) => {
      if (event.buttons === 0 && event.type === "pointermove") return;
      const left = event.clientX - this.chart.over.getBoundingClientRect().left;
      choose(lane, Math.round(this.chart.posToVal(left, "x")) - 1);
    };
    const token = tokens[at];
    return html`<section class="card scrubber" aria-labelledby="scrubber">
      <header>
        <h2 id="scrubber">Along the tokens</h2>
        <span class="key entropy">entropy ${token && nats(token.controlled.entropy)}</span>
        <span class="key kl">KL ${token && nats(token.kl)}</span>
      </header>
      <div
        class="chart"
        aria-hidden="true"
        ref=${(element) => (this.box = element)}
        onPointerDown=${pick}
        onPointerMove=${pick}
      ></div>
      <label class="slide">
        <span>Token ${tokens.length > 0 ? `${at + 1} of ${tokens.length}` : "–"}</span>
        <input
          type="range"
          min="1"
          max=${Math.max(1, tokens.length)}
          value=${at + 1}
          disabled=${tokens.length === 0}
          onInput=${slide}
        />
      </label>
    </section>`;
  }
}

function options(box, chosenAt) {
  const colour = (name) => getComputedStyle(box).getPropertyValue(name).trim();
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { show: false } };
  const font = `12px ${getComputedStyle(box).fontFamily}`;
  return {
    width: box.clientWidth,
    height: HEIGHT,
    padding: [10, 12, 0, 0],
    legend: { show: false },
    cursor: { drag: { x: false, y: false }, points: { show: false }, y: false },
    scales: {
      x: { time: false, range: (_, low, high) => [low ?? 1, Math.max(high ?? 2, 2)] },
      y: { range: (_, low, high) => [0, Math.max(1, high ?? 1) * 1.08] },
    },
    axes: [
      { ...axis, font, size: 26, incrs: [1, 2, 5, 10, 20, 50, 100, 200, 500], grid: { show: false } },
      { ...axis, font, size: 34, space: 28 },
    ],
    series: [
      {},
      { stroke: colour("--entropy-line"), width: 2, points: { show: false } },
      { stroke: colour("--kl-line"), width: 2, points: { show: false } },
    ],
    hooks: { draw: [(chart) => mark(chart, chosenAt(), colour("--ink"))] },
  };
}

// Draw a line where the chosen token is.
function mark(chart, at, stroke) {
  if (at >= chart.data[0].length) return;
  const x = Math.round(chart.valToPos(at + 1, "x", true));
  const { top, height } = chart.bbox;
  chart.ctx.save();
  chart.ctx.strokeStyle = stroke;
  chart.ctx.lineWidth = devicePixelRatio;
  chart.ctx.beginPath();
  chart.ctx.moveTo(x, top);
  chart.ctx.lineTo(x, top + height);
  chart.ctx.stroke();
  chart.ctx.restore();
}
