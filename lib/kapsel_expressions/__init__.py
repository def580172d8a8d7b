"""CEL expressions over an event, for filters, transforms and keys: compiled once, bounded, and evaluated to a value.

`expression.compile_source` says at plan time what is wrong with an expression, and `Expression.evaluate` makes a value
of an event, or a failure that is a value too. `event.Event` is the one home of what an expression can see.
"""
