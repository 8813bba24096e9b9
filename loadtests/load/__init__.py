"""Load tests with Locust: users who stream, objectives of service, and the capacity they allow."""
