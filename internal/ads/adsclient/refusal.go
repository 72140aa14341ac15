package adsclient

// Refusal is an error of Apply that is about one resource. If all that Apply returns are refusals, one or joined, the
// other resources of the update are in use, and what they refer to is subscribed; the server is told of the error all
// the same, for there is no answer between ACK and NACK.
type Refusal interface {
	error
	// Refused is the resource's name.
	Refused() string
}

// refusals are the resources that err refuses; nil: all of them.
func refusals(err error) map[string]bool {
	names := make(map[string]bool)
	if !collect(names, err) {
		return nil
	}
	return names
}

func collect(names map[string]bool, err error) (onlyRefusals bool) {
	switch err := err.(type) {
	case Refusal:
		names[err.Refused()] = true
		return true
	case interface{ Unwrap() []error }:
		for _, part := range err.Unwrap() {
			if !collect(names, part) {
				return false
			}
		}
		return true
	}
	return false
}

// without is the part of an update that was taken; nil names: nothing of it.
func (u Update) without(refused map[string]bool) Update {
	if refused == nil {
		return Update{Type: u.Type, FromDisk: u.FromDisk}
	}
	taken := u
	taken.Upserts = nil
	for _, item := range u.Upserts {
		if !refused[item.Name] {
			taken.Upserts = append(taken.Upserts, item)
		}
	}
	return taken
}

// versions are those of all that belong to the update.
func (u Update) versions(all map[string]string) map[string]string {
	own := make(map[string]string, len(u.Upserts))
	for _, item := range u.Upserts {
		own[item.Name] = all[item.Name]
	}
	return own
}
