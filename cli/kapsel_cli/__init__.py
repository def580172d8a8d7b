"""The command line: `kapsel up` runs all of kapsel without a cluster; the other commands ask the console."""
