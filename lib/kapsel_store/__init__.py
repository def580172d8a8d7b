"""The store: rows, states and SQL on Postgres; one function a statement, the connection first."""
