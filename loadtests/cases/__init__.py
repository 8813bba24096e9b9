"""What is measured: the requests, what they are compared with, and the goals."""
