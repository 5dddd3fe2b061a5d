package stage

import (
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	unfinished = ".partial" // what is not whole yet, or what it has been exchanged for
	replaced   = ".old"     // what an output has taken the place of
)

var hidden = regexp.MustCompile(`(?s)^\.(.+)\.[0-9a-f]{8}(\.partial|\.old)$`)

// longest is how much of a destination's name is in that of what is hidden: systems
// allow 255 bytes.
const longest = 200

// hiddenName is one for what is on its way to a place, without its ending.
func hiddenName(path string) string {
	base := filepath.Base(path)
	for len(base) > longest || !utf8.ValidString(base) && utf8.ValidString(filepath.Base(path)) { // whole characters
		base = base[:min(len(base)-1, longest)]
	}
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x", base, rand.Uint32()))
}

// leftovers says what killed runs have left in a folder, and what to do about it.
func leftovers(folder string) (notes []string) {
	entries, _ := os.ReadDir(folder) // one that cannot be read may be written to all the same
	for _, e := range entries {
		m := hidden.FindStringSubmatch(e.Name())
		path := filepath.Join(folder, e.Name())
		if m == nil || !e.IsDir() && !e.Type().IsRegular() || !abandoned(path) { // nor are we to wait for a pipe
			continue
		}
		if m[2] == replaced && !standsIn(entries, m[1]) {
			notes = append(notes, fmt.Sprintf("%s is %s as it was before a run that was killed: rename it to %s to have it back, or delete it", path, called(m[1]), called(m[1])))
			continue
		}
		notes = append(notes, fmt.Sprintf("%s was left behind by a run that was killed, or that could not remove it: delete it", path))
	}
	return notes
}

// isCut reports whether there may be more of a name.
func isCut(name string) bool { return len(name) > longest-utf8.UTFMax }

// standsIn reports whether a folder has an entry of that name.
func standsIn(entries []fs.DirEntry, name string) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == name || isCut(name) && strings.HasPrefix(e.Name(), name)
	})
}

// called is a destination by what is known of its name.
func called(name string) string {
	if isCut(name) {
		return name + "…"
	}
	return name
}
