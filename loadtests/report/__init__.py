"""Reports of benchmarks: pages, JSON and charts."""
