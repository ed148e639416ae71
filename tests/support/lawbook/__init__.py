"""The tables and the laws that the tests of the core share."""
