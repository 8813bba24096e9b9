"""Kept rows -> what goes over the wire."""
