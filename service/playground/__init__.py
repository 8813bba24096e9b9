"""``/playground``: a page on which a person sees and moves the probabilities."""
