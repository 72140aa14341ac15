package freeport

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
)

// The ports are below those that the kernel gives to connections (net.ipv4.ip_local_port_range): one of these, as the kernel
// hands out for port 0, is now and then somebody's connection by the time it is bound.
const first, last = 16_000, 32_767

// Loopback is an address on 127.0.0.1 where nobody listens. It panics if there is none: nothing can be tested then.
func Loopback() netip.AddrPort {
	for range 1000 {
		at := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(first+rand.IntN(last-first+1)))
		if l, err := net.Listen("tcp", at.String()); err == nil {
			_ = l.Close()
			return at
		}
	}
	panic(fmt.Sprintf("no port of %d..%d is free", first, last))
}
