// What the page needs to know of the server before anything runs.
import { ApiError, get } from "./api.js";
import { set } from "./state.js";
import { loadVectors } from "./vectors.js";

export async function connect() {
  try {
    const [models, tokens] = await Promise.all([get("v1/models"), get("v1/tokens"), loadVectors()]);
    set({ model: models.data[0].id, texts: tokens.data, error: "" });
  } catch (error) {
    if (!(error instanceof ApiError)) throw error;
    set({ error: error.message });
  }
}
