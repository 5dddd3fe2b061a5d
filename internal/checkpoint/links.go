package checkpoint

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// bounds are the places that links of a folder may lead to: the folder itself, and the
// cache of a hub's client if the folder lies in one. The target of a link is copied
// into the output, which may be published: a cloned repository must not be able to pull
// a private file into it.
type bounds struct {
	root  string // the folder, with its own links resolved
	blobs string // blob folder of the cache in which the folder lies, "" if in none
}

// hubFolder matches the name of a repository's folder in a hub's cache.
var hubFolder = regexp.MustCompile(`^(models|datasets|spaces)--.+`)

// hubBlob matches the path of a blob in any hub cache. A link to one gives nothing
// away: its name is a hash of its content, so whoever knows the name knows the content.
var hubBlob = regexp.MustCompile(`[/\\](models|datasets|spaces)--[^/\\]+[/\\]blobs[/\\]([0-9a-f]{40}|[0-9a-f]{64})$`)

func boundsOf(dir string) (bounds, error) {
	root, err := filepath.Abs(dir)
	if err == nil {
		root, err = filepath.EvalSymlinks(root)
	}
	b := bounds{root: root}
	for at := root; err == nil && at != filepath.Dir(at); at = filepath.Dir(at) {
		if above := filepath.Dir(at); filepath.Base(at) == "snapshots" && hubFolder.MatchString(filepath.Base(above)) {
			b.blobs = filepath.Join(above, "blobs")
		}
	}
	return b, err
}

// check refuses a link that leads outside of the bounds or to nothing.
func (b bounds) check(link string) error {
	target, err := filepath.EvalSymlinks(link)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return usage.SourceErrorf("%s: is a link to nowhere: %w", link, err)
	case errors.Is(err, fs.ErrPermission):
		return err
	case err != nil:
		return usage.SourceErrorf("%s: is a link that cannot be followed: %w", link, err)
	}
	if target, err = filepath.Abs(target); err != nil {
		return err
	}
	if lies(target, b.root) || b.blobs != "" && lies(target, b.blobs) || hubBlob.MatchString(target) {
		return nil
	}
	return usage.SourceErrorf("%s: is a link out of the source, to %s, and is not copied: put what it leads to in its place, or remove it", link, target)
}

func lies(path, folder string) bool {
	rel, err := filepath.Rel(folder, path)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
