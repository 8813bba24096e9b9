"""``/playground``: a page that shows and controls the probabilities of tokens."""
