module kapsel.dev/examples/acknowledge

go 1.22
