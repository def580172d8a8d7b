"""A witness of transparency logs (C2SP tlog-witness): it cosigns heads that extend what it saw, and nothing else.

Any log that speaks C2SP checkpoints may use it, kapsel's or another's. It belongs on a machine of somebody whom the
log's operator does not control: that is all its worth. docs/witnesses.md says how to run one.
"""
