"""A one-node Kubernetes cluster from the real binaries, without a container engine.

Used by the command tests/cluster/cluster and by the fixtures of tests/cluster. It needs Python's standard library
alone, so that the command runs before anything is installed.
"""
