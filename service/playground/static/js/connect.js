// What the page needs to know of the server before anything runs.
import { get } from "./api.js";
import { tell } from "./errors.js";
import { loadKinds } from "./kinds.js";
import { set } from "./state.js";
import { loadVectors } from "./vectors.js";

export async function connect() {
  try {
    const [models, tokens] = await Promise.all([get("v1/models"), get("v1/tokens"), loadVectors()]);
    const [{ id, max_model_len }] = models.data;
    set({ model: id, limit: max_model_len, texts: tokens.data });
    await loadKinds();
  } catch (error) {
    set({ connection: "Not connected" });
    tell(error);
  }
}
