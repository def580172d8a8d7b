"""The data plane in one process, in one time, under faults that one seed decides: docs/chaos.md says how."""
