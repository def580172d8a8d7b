"""The resources that people declare, and the plan that turns them into configuration rows.

`manifests.parse` makes a frozen resource, or a list of problems, of one document; `plan.plan` makes the whole
configuration of one Relay of many resources. Both are pure: they know nothing of files, YAML, Kubernetes or databases,
so `kapsel up` and the operator reach the same verdict on the same manifests.
"""
