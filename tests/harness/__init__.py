"""What the programs in tests/clients, tests/faults and tests/root share (standard library, but for `load`)."""
