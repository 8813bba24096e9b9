// What went wrong, told to the person.
import { ApiError } from "./api.js";
import { set } from "./state.js";

// Show what the server refused; any other error is a defect of the page, and thrown on.
export function tell(error) {
  if (!(error instanceof ApiError)) throw error;
  set({ error: error.message, asksKey: error.asksKey });
}
