"""What several tests need: no tests of its own."""
