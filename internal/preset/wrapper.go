package preset

import (
	"fmt"
	"iter"
	"strings"
)

// wrapper is what a wrapping module puts into the names of what it holds.
type wrapper struct {
	prefix string
	inside bool // it may wrap any module; else the whole model alone
}

var wrappers = []wrapper{
	{"_orig_mod.", true}, // torch.compile
	{"_fsdp_wrapped_module.", true},
	{"_checkpoint_wrapped_module.", true},
	{"module.", false}, // DataParallel
}

// Wrapped says of a checkpoint's names that wrappers are in them, and how they
// get rid of them, or "".
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

// wrapping returns what wraps a name, from its beginning, then inside it.
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

// Unwrap takes prefixes off a name, one after the other, each once. What may
// wrap any module is taken out wherever it is.
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
