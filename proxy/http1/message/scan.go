package message

import "bytes"

// Scan finds the end of a head in bytes that arrive piece by piece. The zero value is at the beginning of one.
type Scan struct {
	line int // where the current line begins
	seen int // up to where it has been searched
}

// End returns the length of the head that pending begins with, its empty line included, or 0 if that has not come yet:
// call it again with more. A line that does not end in CRLF is ErrMalformed.
func (s *Scan) End(pending []byte) (int, error) {
	for {
		i := bytes.IndexByte(pending[s.seen:], '\n')
		if i < 0 {
			s.seen = len(pending)
			return 0, nil
		}
		end := s.seen + i
		if end == s.line || pending[end-1] != '\r' {
			return 0, Malformed("bare line feed")
		}
		if end == s.line+1 && s.line > 0 {
			return end + 1, nil
		}
		s.line, s.seen = end+1, end+1
	}
}
