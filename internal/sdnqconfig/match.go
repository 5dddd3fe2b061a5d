package sdnqconfig

import (
	"strings"
	"sync"
	"time"

	"github.com/dlclark/regexp2"
)

// Match returns the first entry of a list that matches a parameter's name, by
// SDNQ's rules: an entry that starts with a dot matches names that start with
// its rest; any other matches the whole name, or one whole component of it,
// or, where it holds a star, as a pattern from the start.
func Match(param string, list []string) (entry string, ok bool) {
	for _, e := range list {
		if matches(param, e) {
			return e, true
		}
	}
	return "", false
}

func matches(param, entry string) bool {
	if prefix, ok := strings.CutPrefix(entry, "."); ok {
		return strings.HasPrefix(param, prefix)
	}
	return param == entry || hasComponent(param, entry) ||
		strings.Contains(entry, "*") && matchesStar(param, entry)
}

func hasComponent(param, entry string) bool {
	if !strings.Contains(param, entry) { // a few instructions, for nearly all
		return false
	}
	for part := range strings.SplitSeq(param, ".") {
		if part == entry {
			return true
		}
	}
	return false
}

var patterns sync.Map // entry to *regexp2.Regexp, nil where it is no pattern

// matchesStar: ".*" is a dot and anything, "*" anything; all else is a regular
// expression, matched at the start of the name. What does not compile, on
// which SDNQ aborts, matches nothing.
func matchesStar(param, entry string) bool {
	v, ok := patterns.Load(entry)
	if !ok {
		expr := strings.ReplaceAll(strings.ReplaceAll(entry, ".*", `\.*`), "*", ".*")
		re, err := regexp2.Compile(`\A(?:`+expr+`)`, regexp2.None)
		if err == nil {
			re.MatchTimeout = time.Second
		}
		v, _ = patterns.LoadOrStore(entry, re)
	}
	re := v.(*regexp2.Regexp)
	if re == nil {
		return false
	}
	found, err := re.MatchString(param)
	return found && err == nil
}
