module kapsel.dev/examples/gossip

go 1.22
