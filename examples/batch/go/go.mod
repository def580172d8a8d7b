module kapsel.dev/examples/batch

go 1.22
