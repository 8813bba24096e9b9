"""What is told of it: pages, JSON and charts."""
