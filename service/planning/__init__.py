"""The plan of a request: its control, its rows of logits, its share of memory."""
