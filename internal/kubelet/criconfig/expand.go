package criconfig

import (
	"fmt"
	"strings"
)

// Expand replaces references $(NAME) by the value that the first of the sets has; one that none has stays as it is, and $$
// stands for $, so that $$(NAME) is not a reference.
func Expand(s string, sets ...map[string]string) string {
	return expand(s, func(name string) (string, bool) { return lookup(name, sets) })
}

func expand(s string, value func(name string) (string, bool)) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			end := strings.IndexByte(s, ')')
			if end < 0 {
				b.WriteString("$(")
				s = s[1:]
				continue
			}
			name := s[1:end]
			s = s[end+1:]
			if v, ok := value(name); ok {
				b.WriteString(v)
			} else {
				b.WriteString("$(" + name + ")")
			}
		default:
			b.WriteByte('$')
		}
	}
}

func lookup(name string, sets []map[string]string) (string, bool) {
	for _, set := range sets {
		if v, ok := set[name]; ok {
			return v, true
		}
	}
	return "", false
}

func expandAll(list []string, values map[string]string) []string {
	out := make([]string, 0, len(list))
	for _, s := range list {
		out = append(out, Expand(s, values))
	}
	return out
}

// ExpandStrict is Expand for places where a reference to a variable that does not exist is an error.
func ExpandStrict(s string, values map[string]string) (string, error) {
	var missing []string
	out := expand(s, func(name string) (string, bool) {
		v, ok := values[name]
		if !ok {
			missing = append(missing, name)
		}
		return v, ok
	})
	if len(missing) > 0 {
		return "", fmt.Errorf("missing value for %q", missing[0])
	}
	return out, nil
}
