"""The auditor of a log, behind `kapsel audit`: reads it as anybody may, and believes nothing that it has not checked.

`run` holds a whole audit together. Pure are `bundle` (one run of leaves), `chains` (whether an endpoint's records have
gaps), `claims` (one head against another); `source` fetches, `walk` goes through the leaves, `state` remembers.
"""
