"""Real components for tests, as importable code: cheap to reset, and gone when the test run is."""
