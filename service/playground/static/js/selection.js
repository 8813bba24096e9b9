// The chosen token: one lane, one place in it.
import { set, state } from "./state.js";

export function chosen() {
  const { lane, at } = state.selected;
  return state.lanes[lane]?.tokens[at] ?? null;
}

export function choose(lane, at) {
  const count = state.lanes[lane]?.tokens.length ?? 0;
  if (count > 0) set({ selected: { lane, at: Math.min(count - 1, Math.max(0, at)) } });
}
