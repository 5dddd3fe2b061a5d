package remote

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
)

// hubHome is the folder of the hub's own tools.
func hubHome() string {
	if home := os.Getenv("HF_HOME"); home != "" {
		return home
	}
	if cache := os.Getenv("XDG_CACHE_HOME"); cache != "" {
		return filepath.Join(cache, "huggingface")
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, ".cache", "huggingface")
}

// hubCache is the folder of the repositories that they have downloaded.
func hubCache() string {
	for _, name := range []string{"HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"} {
		if folder := os.Getenv(name); folder != "" {
			return folder
		}
	}
	return filepath.Join(hubHome(), "hub")
}

// offline reports whether the hub is not to be asked.
func offline() bool {
	switch strings.ToUpper(os.Getenv("HF_HUB_OFFLINE")) {
	case "1", "ON", "YES", "TRUE":
		return true
	}
	return false
}

// inCache is the folder of the repository in the cache.
func (h *hub) inCache() string {
	return filepath.Join(hubCache(), "models--"+strings.ReplaceAll(h.repo, "/", "--"))
}

// snapshot is the folder of the files of a commit in the cache.
func (h *hub) snapshot(commit string) string { return filepath.Join(h.inCache(), "snapshots", commit) }

// cachedFile is a file of the cache.
type cachedFile struct {
	*os.File
	size int64
}

func (f cachedFile) Size() int64 { return f.size }

// cached opens a file of a snapshot, nil where it is not there whole.
func cached(snapshot, name string, size int64) files.File {
	at := filepath.Join(snapshot, filepath.FromSlash(name))
	info, err := os.Stat(at)
	if err != nil || !info.Mode().IsRegular() || info.Size() != size {
		return nil
	}
	f, err := os.Open(at)
	if err != nil {
		return nil
	}
	return cachedFile{f, size}
}

// listCached is list from the cache alone.
func (h *hub) listCached() (*tree, error) {
	commit := h.revision
	if !isCommit(commit) {
		text, err := os.ReadFile(filepath.Join(h.inCache(), "refs", filepath.FromSlash(h.revision)))
		if err != nil || !isCommit(strings.TrimSpace(string(text))) {
			return nil, h.notCached()
		}
		commit = strings.TrimSpace(string(text))
	}
	t := &tree{commit: commit, files: map[string]entry{}}
	root := h.snapshot(commit)
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(at) // the files are links
		if err != nil || !info.Mode().IsRegular() {
			return err
		}
		name, err := filepath.Rel(root, at)
		if err == nil {
			t.add([]entry{{Type: "file", Path: filepath.ToSlash(name), Size: info.Size()}})
		}
		return err
	})
	if err != nil || len(t.names) == 0 {
		return nil, h.notCached()
	}
	slices.Sort(t.names)
	return t, nil
}

func (h *hub) notCached() error {
	return usage.SourceErrorf("is not in %s, and HF_HUB_OFFLINE forbids to ask the hub", hubCache())
}
