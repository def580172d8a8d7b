"""The operator: custom resources into Deployments, Services and configuration rows, and an honest status."""
