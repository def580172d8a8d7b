"""The receiver: proves who calls, recognises duplicates, stores durably, and only then says so."""
