"""`flux agent start NAME --mode api`: the documented HTTP contract, as a client of a Flux server that keeps nothing."""
