"""The door: who may come in, how much at once, and a line about each who came."""
