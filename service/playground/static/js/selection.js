// The chosen token: one lane, one place in it.
import { set, state } from "./state.js";

// Of a text that has not come so far, or ends before the place, its last token is the chosen one.
export function selection() {
  const { lane, at } = state.selected;
  const count = state.lanes[lane]?.tokens.length ?? 0;
  return { lane, at: Math.max(0, Math.min(at, count - 1)) };
}

export function chosen() {
  const { lane, at } = selection();
  return state.lanes[lane]?.tokens[at] ?? null;
}

export function choose(lane, at) {
  const count = state.lanes[lane]?.tokens.length ?? 0;
  if (count > 0) set({ selected: { lane, at: Math.min(count - 1, Math.max(0, at)) } });
}
