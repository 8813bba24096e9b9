// What the page needs to know of the server before anything runs.
import { get } from "./api.js";
import { tell } from "./errors.js";
import { set } from "./state.js";
import { loadVectors } from "./vectors.js";

export async function connect() {
  try {
    const [models, tokens] = await Promise.all([get("v1/models"), get("v1/tokens"), loadVectors()]);
    set({ model: models.data[0].id, texts: tokens.data });
  } catch (error) {
    tell(error);
  }
}
