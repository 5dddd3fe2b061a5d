package checkpoint

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// bookkeeping are folders that tools keep beside a model: a copy of a
// checkpoint does not have them.
var bookkeeping = []string{".git", ".cache"}

// OtherFiles returns the files below a folder that are neither its weights nor
// its weight index, as slash paths relative to it, ascending. They belong to the
// model and are to be copied as they are. Folders named .git and .cache, where
// tools keep their own records, are left out. A link to a file counts as that
// file; what is neither a file nor a folder is an [ErrSource]. It is nil if the
// source is not a folder.
func (c *Checkpoint) OtherFiles() ([]string, error) {
	if !c.IsDir {
		return nil, nil
	}
	var others []string
	// Unlike filepath.WalkDir, this follows a link that c.Dir itself may be.
	err := fs.WalkDir(os.DirFS(c.Dir), ".", func(name string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && slices.Contains(bookkeeping, entry.Name()):
			return fs.SkipDir
		case entry.IsDir() || c.isWeights(name):
			return nil
		}
		others = append(others, name)
		return checkFile(filepath.Join(c.Dir, filepath.FromSlash(name)))
	})
	if err != nil {
		return nil, err
	}
	slices.Sort(others)
	return others, nil
}

// isWeights reports whether name is a shard or the weight index.
func (c *Checkpoint) isWeights(name string) bool {
	_, shard := slices.BinarySearch(c.ShardNames, name)
	return shard || name == c.Index
}

// checkFile makes sure that path is a file that can be copied.
func checkFile(path string) error {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return sourceErrorf("%s: is a link to nowhere: %w", path, err)
	case err != nil:
		return err
	case info.IsDir():
		return sourceErrorf("%s: is a link to a folder: put the folder itself in its place", path)
	case !info.Mode().IsRegular():
		return sourceErrorf("%s: is not a file", path)
	}
	return nil
}
