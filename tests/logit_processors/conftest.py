"""How Hypothesis runs here."""

from hypothesis import settings

# No deadline: on a busy machine one slow example says nothing about the code.
settings.register_profile("unit", deadline=None, max_examples=100)
settings.load_profile("unit")
