package cli

import (
	"errors"

	"connectrpc.com/connect"
)

// Exit codes, as istioctl's (istioctl/cmd/sysexits.go, after BSD sysexits), 75 for a plane out of reach, and what shells
// say of a program that Ctrl-C ended.
const (
	ExitOK          = 0
	ExitUnknown     = 1
	ExitUsage       = 64
	ExitData        = 65
	ExitTempFail    = 75
	ExitAnalysis    = 79
	ExitInterrupted = 130
)

type exitError struct {
	code int
	error
}

func (e exitError) Unwrap() error { return e.error }

// Exit gives err an exit code.
func Exit(code int, err error) error { return exitError{code, err} }

// Code is the exit code that an error means.
func Code(err error) int {
	var coded exitError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &coded):
		return coded.code
	}
	switch connect.CodeOf(err) {
	case connect.CodeInvalidArgument, connect.CodeFailedPrecondition, connect.CodeAlreadyExists, connect.CodeNotFound:
		return ExitData
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded:
		return ExitTempFail
	}
	return ExitUnknown
}

// Message is what a person reads of an error: a server's words without the wrapping of the protocol.
func Message(err error) string {
	var remote *connect.Error
	if errors.As(err, &remote) {
		return remote.Message()
	}
	return err.Error()
}
