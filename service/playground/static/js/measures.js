// What a token may be coloured by: its value, where that lies between 0 and 1, and how it reads.

const clamp = (value) => Math.min(1, Math.max(0, value));

// Values are those after control: what the token was drawn from. A scale is fixed, so that a
// colour means the same in every trace; `ticks` are its start, middle and end. `unknown` says why
// the value of a token may be null.
export const MEASURES = {
  probability: {
    label: "Probability",
    explains: "How likely the token was. Strong colour: the model was sure of it.",
    ticks: ["0 %", "50 %", "100 %"],
    value: (token) => Math.exp(token.controlled.logprob),
    share: (value) => clamp(value),
    show: percent,
  },
  surprisal: {
    label: "Surprisal",
    explains: "How unexpected the token was: −log of its probability. Strong colour: a surprise.",
    ticks: ["0", "3", "≥ 6 nats"],
    value: (token) => -token.controlled.logprob,
    share: (value) => clamp(value / 6),
    show: nats,
  },
  entropy: {
    label: "Entropy",
    explains: "How undecided the model was before it chose. Strong colour: many ways to go on.",
    ticks: ["0", "2.5", "≥ 5 nats"],
    value: (token) => token.controlled.entropy,
    share: (value) => clamp(value / 5),
    show: nats,
  },
  kl: {
    label: "KL",
    explains: "How far control moved the distribution at this token. No colour: not at all.",
    unknown: "Underlined: not known, a vector steered inside the model.",
    ticks: ["0", "1", "≥ 4 nats"],
    value: (token) => token.kl,
    // By its root, so that small shifts are seen beside large ones.
    share: (value) => Math.sqrt(clamp(value / 4)),
    show: nats,
  },
};

export function percent(value) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0 %";
  if (value < 0.0001) return "< 0.01 %";
  const digits = value < 0.01 ? 2 : value < 0.9995 ? 1 : 0;
  return `${(100 * value).toFixed(digits)} %`;
}

export function nats(value) {
  if (value === null) return "–";
  if (!Number.isFinite(value)) return "∞";
  return `${value.toFixed(2)} nats`;
}
