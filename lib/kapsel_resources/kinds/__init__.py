"""The kinds of kapsel.dev/v1alpha1, one module each, and the core kinds read beside them."""
