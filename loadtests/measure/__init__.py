"""Measurements of servers: start, requests, times and memory, in turns with another server."""
