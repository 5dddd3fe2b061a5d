package checkpoint

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// bounds are where the links of a folder may lead: into it, and into the cache
// that a hub's client keeps it in. Whatever a link leads to is copied into the
// output, which may be published: a cloned repository must not have a private
// file in it.
type bounds struct {
	root  string // the folder, links followed
	blobs string // of the cache that the folder lies in, "" for none
}

// hubFolder is the name of a repository's folder in a cache.
var hubFolder = regexp.MustCompile(`^(models|datasets|spaces)--.+`)

// hubBlob is a file of any cache. Who knows its name, a hash of its content,
// knows the content.
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

// check refuses a link that leads out of the bounds or nowhere.
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
