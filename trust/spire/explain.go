package spire

import (
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// failure is an error of the server, said without the transport's words.
type failure struct {
	text string
	err  error
}

func (f *failure) Error() string { return f.text }
func (f *failure) Unwrap() error { return f.err }

// explain says which server failed, how, and what to do where that can be told.
func (c *Client) explain(err error) error {
	text := "SPIRE server " + strings.TrimPrefix(c.address, "dns:///") + ": " + plain(err)
	if advice := c.advice(err); advice != "" {
		text += ": " + advice
	}
	return &failure{text, err}
}

// plain cuts what gRPC wraps around a message, and around the reason why it has no connection.
func plain(err error) string {
	text := err.Error()
	for _, mark := range []string{" desc = \"transport: Error while dialing: ", " desc = \"transport: ", " desc = "} {
		begin, end := strings.Index(text, "rpc error: code = "), strings.LastIndex(text, mark)
		if begin >= 0 && end > begin {
			return text[:begin] + strings.TrimSuffix(text[end+len(mark):], `"`)
		}
	}
	return text
}

func (c *Client) advice(err error) string {
	socket := strings.HasPrefix(c.address, "unix:")
	has := func(text string) bool { return strings.Contains(err.Error(), text) }
	switch code := status.Code(err); {
	case has("connect: permission denied"):
		return "the socket admits SPIRE's own user and group only: run the agent with that group"
	case code == codes.PermissionDenied || code == codes.Unauthenticated:
		return "over TCP the entry of the agent's identity must be marked admin ('spire-server entry create -admin', or entry update)"
	case code != codes.Unavailable && code != codes.DeadlineExceeded:
		return ""
	case has("tls: "), has("authentication handshake failed"):
		return "is it the SPIRE server of this trust domain?"
	case socket:
		return "does it run, and is this its socket (socket_path in server.conf)?"
	}
	return "does it run, and is this its address (bind_address and bind_port in server.conf)?"
}
