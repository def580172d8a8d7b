"""Services that hold keys, whole enough that a client cannot tell: Vault transit, AWS KMS and STS, Google Cloud KMS."""
