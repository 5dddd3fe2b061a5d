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
	unfinished = ".partial" // ends the name of an unfinished output, or of an old one just exchanged for it
	replaced   = ".old"     // ends the name of an old output that was replaced
)

var hidden = regexp.MustCompile(`(?s)^\.(.+)\.[0-9a-f]{8}(\.partial|\.old)$`)

// longest is how many bytes of a destination's name a hidden name contains, since
// systems allow names of 255 bytes.
const longest = 200

// hiddenName returns a hidden path beside path, without one of the endings above.
func hiddenName(path string) string {
	base := filepath.Base(path)
	for len(base) > longest || !utf8.ValidString(base) && utf8.ValidString(filepath.Base(path)) { // cut between characters
		base = base[:min(len(base)-1, longest)]
	}
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x", base, rand.Uint32()))
}

// Leftovers lists what killed runs have left beside a destination.
func Leftovers(dest string) []string {
	path, err := Real(dest)
	if err != nil {
		return nil
	}
	return leftovers(filepath.Dir(path))
}

// leftovers lists what killed runs have left in a folder, with what to do about it.
func leftovers(folder string) (notes []string) {
	entries, _ := os.ReadDir(folder) // a folder that cannot be read may still be writable
	for _, e := range entries {
		m := hidden.FindStringSubmatch(e.Name())
		path := filepath.Join(folder, e.Name())
		if m == nil || !e.IsDir() && !e.Type().IsRegular() || !abandoned(path) { // abandoned opens the path, and opening a FIFO would wait
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

// isCut reports whether a name may be the beginning of a longer one.
func isCut(name string) bool { return len(name) > longest-utf8.UTFMax }

// standsIn reports whether a folder has an entry of that name.
func standsIn(entries []fs.DirEntry, name string) bool {
	return slices.ContainsFunc(entries, func(e fs.DirEntry) bool {
		return e.Name() == name || isCut(name) && strings.HasPrefix(e.Name(), name)
	})
}

// called names a destination in a message as far as its name is known.
func called(name string) string {
	if isCut(name) {
		return name + "…"
	}
	return name
}
