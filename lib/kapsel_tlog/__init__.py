"""The Merkle log over the store: the attestor appends, the console proves. The formats are the verifier's."""
