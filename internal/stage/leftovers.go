package stage

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
)

const (
	unfinished = ".partial" // what is not whole yet, or what it has been exchanged for
	replaced   = ".old"     // what an output has taken the place of
)

var hidden = regexp.MustCompile(`^\.(.+)\.[0-9a-f]{8}(\.partial|\.old)$`)

// hiddenName is one for what is on its way to a place, without its ending.
func hiddenName(path string) string {
	const most = 200 // bytes: systems allow 255
	base := filepath.Base(path)
	return filepath.Join(filepath.Dir(path), fmt.Sprintf(".%s.%08x", base[:min(len(base), most)], rand.Uint32()))
}

// leftovers says what killed runs have left in a folder, and what to do about it.
func leftovers(folder string) (notes []string) {
	entries, _ := os.ReadDir(folder) // one that cannot be read may be written to all the same
	for _, e := range entries {
		m := hidden.FindStringSubmatch(e.Name())
		path := filepath.Join(folder, e.Name())
		if m == nil || !abandoned(path) {
			continue
		}
		_, err := os.Lstat(filepath.Join(folder, m[1]))
		if m[2] == replaced && errors.Is(err, fs.ErrNotExist) {
			notes = append(notes, fmt.Sprintf("%s is %s as it was before a run that was killed: rename it to %s to have it back, or delete it", path, m[1], m[1]))
			continue
		}
		notes = append(notes, fmt.Sprintf("%s was left behind by a run that was killed, or that could not remove it: delete it", path))
	}
	return notes
}
