"""How a process of kapsel starts, reads its settings, logs, measures, reports its health and drains.

Every component and the store use it; it knows nothing of webhooks or of a database. The modules: `settings`, `logs`,
`health`, `process`, `backoff`, `errors`.
"""
