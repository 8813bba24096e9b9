// The exact figures, for a pointer that rests on what shows them.

// Of a token, after control and before it.
export function exactly(token) {
  const { base, controlled } = token;
  const both = (show) => `${show(controlled)}, before control ${base ? show(base) : "not known"}`;
  return [
    `${JSON.stringify(token.text)}, token ${token.id}`,
    both(({ logprob }) => exactShare(Math.exp(logprob))),
    both(({ rank }) => `rank ${rank}`),
    both(({ entropy }) => `entropy ${nats(entropy)}`),
    `KL ${token.kl === null ? "not known" : nats(token.kl)}`,
  ].join("\n");
}

// Of a probability, null if it is of a token outside the top_k, undefined if it is not known.
export function exactShare(share) {
  if (share === undefined) return "not known";
  if (share === null) return "not among the likeliest";
  return `${(100 * share).toPrecision(5)} % (log ${nats(Math.log(share))})`;
}

function nats(value) {
  return Number.isFinite(value) ? `${value.toFixed(4)} nats` : "−∞";
}
