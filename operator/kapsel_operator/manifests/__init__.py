"""The objects that a Relay becomes: pure builders, one file for each kind of object.

Called by the operator's decisions. `build` says what to apply, `held` what to leave alone, `problems` what the Relay
asks for and cannot have; `observed` reads back what became of it. Nothing here reads or writes anything.
"""
