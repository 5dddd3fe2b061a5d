package preset

import (
	"fmt"
	"iter"
	"strings"
)

// wrapper is the part that a wrapping module adds to the names of what it wraps.
type wrapper struct {
	prefix string
	inside bool // it may wrap any module, not only the whole model
}

var wrappers = []wrapper{
	{"_orig_mod.", true}, // torch.compile
	{"_fsdp_wrapped_module.", true},
	{"_checkpoint_wrapped_module.", true},
	{"module.", false}, // DataParallel
}

// Wrapped says which wrappers are in a checkpoint's names and how to remove them, "" if
// there are none.
func Wrapped(names iter.Seq[string]) string {
	n, all, first := 0, 0, ""
	for name := range names {
		all++
		if len(wrapping(name)) > 0 {
			if n++; n == 1 {
				first = name
			}
		}
	}
	if n == 0 {
		return ""
	}
	found := wrapping(first)
	take := "`MigrateOptions.StripPrefixes` " + strings.Join(found, " `StripPrefixes` ")
	return fmt.Sprintf("%d of %d names have %s in them, as %s, which loaders do not know: %s takes it off",
		n, all, strings.Join(found, ""), first, take)
}

// wrapping returns the wrappers in a name: first those at its beginning, then those
// inside.
func wrapping(name string) (found []string) {
	for again := true; again; {
		again = false
		for _, w := range wrappers {
			if rest, ok := strings.CutPrefix(name, w.prefix); ok {
				found, name, again = append(found, w.prefix), rest, true
			}
		}
	}
	for _, w := range wrappers {
		if w.inside && strings.Contains(name, "."+w.prefix) {
			found = append(found, w.prefix)
		}
	}
	return found
}

// Unwrap removes prefixes from a name, one after the other, each once. Those of
// wrappers that may wrap any module are removed inside the name as well.
func Unwrap(name string, prefixes []string) string {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p); ok {
			name = rest
			if !strings.HasSuffix(p, ".") {
				name = strings.TrimPrefix(name, ".")
			}
		}
		for _, w := range wrappers {
			if w.inside && w.prefix == strings.TrimSuffix(p, ".")+"." {
				name = strings.ReplaceAll(strings.TrimPrefix(name, w.prefix), "."+w.prefix, ".")
			}
		}
	}
	return name
}
