// {"dtype", "shape", "data"} with little-endian bytes in base64 -> rows of plain numbers.

const READ = {
  float32: (view, at) => view.getFloat32(4 * at, true),
  int32: (view, at) => view.getInt32(4 * at, true),
};

// Return the numbers of a tensor [n] as an array.
export function vector(tensor) {
  const read = READ[tensor.dtype];
  if (!read) throw new TypeError(`a tensor of ${tensor.dtype} is not read here`);
  const bytes = Uint8Array.from(atob(tensor.data), (character) => character.charCodeAt(0));
  const view = new DataView(bytes.buffer);
  return Array.from({ length: bytes.length / 4 }, (_, at) => read(view, at));
}

// Return a tensor [rows, columns] as an array of rows.
export function matrix(tensor) {
  const [rows, columns] = tensor.shape;
  const flat = vector(tensor);
  return Array.from({ length: rows }, (_, at) => flat.slice(at * columns, (at + 1) * columns));
}
