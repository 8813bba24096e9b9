// The entries of the control, as the request has them, and the changes that the editor makes.
import { controlChanged } from "./run.js";
import { state } from "./state.js";

export const EVERYWHERE = {
  logits: { from: 0, until: null },
  residual: { from: null, until: null }, // the prompt included
};

export function add(kind, entry) {
  const { control } = state.setup;
  control[kind] = [control[kind] ?? [], entry].flat();
  controlChanged();
}

// Set the one entry of a kind that is no list.
export function put(kind, entry) {
  state.setup.control[kind] = entry;
  controlChanged();
}

export function remove(kind, at) {
  const { control } = state.setup;
  if (at === undefined) delete control[kind];
  else control[kind].splice(at, 1);
  controlChanged();
}

// Set fields of an entry; one that is set to undefined is taken out.
export function change(entry, fields) {
  Object.assign(entry, fields);
  for (const [name, value] of Object.entries(fields)) if (value === undefined) delete entry[name];
  controlChanged();
}

// Match by token id what was matched as a text, or the other way round.
export function matchBy(name, entry) {
  if (name === "text") {
    change(entry, { token_id: undefined, text: state.texts[entry.token_id] ?? "" });
  } else {
    const id = state.texts.indexOf(entry.text);
    change(entry, { text: undefined, ignore_case: undefined, token_id: id < 0 ? null : id });
  }
}

// Move one end of the window in which an entry applies.
export function within(entry, end, position) {
  const everywhere = EVERYWHERE[entry.at] ?? EVERYWHERE.logits;
  const when = { ...(entry.when ?? everywhere), [end]: position ?? everywhere[end] };
  const open = when.from === everywhere.from && when.until === everywhere.until;
  change(entry, { when: open ? undefined : when });
}

export function addSteering(vector) {
  add("steer", { ...acting(vector), strength: 0 });
}

// Steer along another vector, which may not act where the one before it did.
export function steerAlong(entry, vector) {
  change(entry, { ...acting(vector), layers: undefined, when: undefined });
}

function acting({ name, space }) {
  return { vector: name, at: space === "residual" ? "residual" : "logits" };
}
