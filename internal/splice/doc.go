// Package splice copies between two connections, both ways, until both have ended.
//
// Between TCP connections the bytes stay in the kernel (splice(2)), through a pipe that is held only while bytes
// move, so an idle pair holds none. Between other connections they go through buffers. A half-close travels as a
// half-close and a reset as a reset. Bytes are counted as they pass, into counters that the caller may watch. [Listen]
// and [Connect] make connections with as few system calls as it takes.
//
// A pair begins with a goroutine for each direction, which is the cheapest for connections of a few packets. One that has
// moved much goes on in a loop that it shares with others:
//
//	Run -> direction, direction -> 4 MiB -> both stop -> loop, by epoll of its own -> Run returns
//
//	pipes := splice.NewPipes(64); defer pipes.Close()
//	reason, err := splice.Run(ctx, client, upstream, splice.Config{Pipes: pipes, IdleTimeout: time.Hour})
//
// Run returns when both directions have ended, with both connections closed and no goroutine left.
package splice
