// Numbers of layers as people write them: "10, 14-16".

const MOST = 4096; // no model has more

// What a field for them takes, and how it says so.
export const LAYERS = {
  pattern: "\\s*\\d+(\\s*-\\s*\\d+)?([\\s,]+\\d+(\\s*-\\s*\\d+)?)*[\\s,]*",
  title: "Numbers of layers, such as 10, 12-14",
};

// Return the layers that a text names, null if it names none.
export function layersOf(text) {
  const found = [...text.matchAll(/(\d+)(?:\s*-\s*(\d+))?/g)].flatMap(([, first, last = first]) =>
    Array.from({ length: Math.min(MOST, Math.max(0, last - first + 1)) }, (_, at) => Number(first) + at),
  );
  return found.length > 0 ? [...new Set(found)].sort((a, b) => a - b) : null;
}

export function textOf(layers) {
  const runs = [];
  for (const layer of layers ?? []) {
    if (runs.at(-1)?.[1] === layer - 1) runs.at(-1)[1] = layer;
    else runs.push([layer, layer]);
  }
  return runs.map(([first, last]) => (first === last ? `${first}` : `${first}-${last}`)).join(", ");
}
