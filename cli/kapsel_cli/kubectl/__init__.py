"""kubectl-kapsel: kapsel's commands for a cluster, with the rights of whoever runs them.

The resources come from the API server. What is in a Relay's database comes from the console of that Relay, through the
API server's service proxy, so nothing has to be exposed for it. The commands that `kapsel` has too are the same code;
what is here is the way to the console, and what only a cluster has.
"""
