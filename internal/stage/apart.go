package stage

import (
	"os"
	"path/filepath"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// Apart refuses two destinations of one run that are the same, or of which one lies in the
// other.
func Apart(a, b string) error {
	first, err := Real(a)
	if err != nil {
		return err
	}
	second, err := Real(b)
	if err != nil {
		return err
	}
	switch {
	case first == second:
		return usage.Errorf("%s is the destination of two outputs: name one for each", b)
	case within(first, second):
		return usage.Errorf("%s lies in %s, and both are destinations: name another one", a, b)
	case within(second, first):
		return usage.Errorf("%s lies in %s, and both are destinations: name another one", b, a)
	}
	return nil
}

// Together reports whether two destinations are on one disk, so that they share what is
// free there, and whether they are files of one folder.
func Together(a, b string) (disk, folder bool) {
	first, errA := Real(a)
	second, errB := Real(b)
	if errA != nil || errB != nil {
		return false, false
	}
	x, errA := os.Stat(filepath.Dir(first))
	y, errB := os.Stat(filepath.Dir(second))
	if errA != nil || errB != nil {
		return false, false
	}
	return !otherDevice(x, y), os.SameFile(x, y)
}
