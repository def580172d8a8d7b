"""What the cluster cannot go on from."""


class ClusterError(Exception):
    """One sentence for the person: what is wrong, and where to look or what to do."""
