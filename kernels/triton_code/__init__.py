"""Programs in Triton's language; importing a module here needs Triton."""
