"""Our own small language for tests: identities, hops, fakes."""
