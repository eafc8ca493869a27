"""What every listener of Flux has in common: the guard in front, the error envelope, and the frame of a stream."""
