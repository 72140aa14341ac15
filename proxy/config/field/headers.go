package field

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"

	"github.com/periplus-mesh/periplus/proxy/config"
)

var headerActions = map[corev3.HeaderValueOption_HeaderAppendAction]config.HeaderAction{
	corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD: config.AppendOrAdd, corev3.HeaderValueOption_ADD_IF_ABSENT: config.AddIfAbsent,
	corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD: config.OverwriteOrAdd, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS: config.OverwriteIfExists,
}

// HeaderOps are header mutations; what would frame or route the message, or break its head, is refused. An empty value is
// left out unless it shall be kept, as in Envoy.
func HeaderOps(p Problems, field string, options []*corev3.HeaderValueOption) []config.HeaderOp {
	p.Limit(field, len(options), maxHeaderOps)
	var ops []config.HeaderOp
	for i, option := range options {
		p := p.At(field, i)
		op := config.HeaderOp{Name: strings.ToLower(option.GetHeader().GetKey()), Value: option.GetHeader().GetValue()}
		if raw := option.GetHeader().GetRawValue(); len(raw) > 0 {
			op.Value = string(raw)
		}
		op.Action = headerActions[option.GetAppendAction()]
		if append := option.GetAppend(); append != nil && !append.GetValue() {
			op.Action = config.OverwriteOrAdd
		}
		if op.Value = strings.ReplaceAll(op.Value, "%%", "\x00"); strings.Contains(op.Value, "%") {
			p.Refuse("header.value", "substitution commands are not supported")
		}
		op.Value = strings.ReplaceAll(op.Value, "\x00", "%")
		if !changeable(op.Name) || !HeaderValue(op.Value) {
			p.Refuse("header", "%q cannot be set so", op.Name)
		}
		if op.Value != "" || option.GetKeepEmptyValue() {
			ops = append(ops, op)
		}
	}
	return ops
}

// HeaderNames to remove, in lower case.
func HeaderNames(p Problems, field string, names []string) []string {
	p.Limit(field, len(names), maxHeaderOps)
	var lower []string
	for _, name := range names {
		name = strings.ToLower(name)
		if !changeable(name) {
			p.Refuse(field, "%q cannot be removed", name)
		}
		lower = append(lower, name)
	}
	return lower
}

// changeable: a token (RFC 9110, 5.6.2), and not one that frames or routes the message.
func changeable(name string) bool {
	for i := range len(name) {
		c := name[i]
		if !(c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0) {
			return false
		}
	}
	switch name {
	case "", "host", "content-length", "transfer-encoding", "connection", "te", "trailer", "upgrade", "keep-alive", "proxy-connection":
		return false
	}
	return true
}

// HeaderValue tells whether a text can be one: short enough, and without control characters.
func HeaderValue(value string) bool {
	return len(value) <= 16<<10 && !strings.ContainsFunc(value, func(r rune) bool { return r < ' ' && r != '\t' || r == 127 })
}
