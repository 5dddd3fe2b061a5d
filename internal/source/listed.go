package source

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/usage"
	"github.com/tensorpress/tensorpress/internal/watch"
)

// listed is the tree of a store that lists its files.
type listed struct {
	ctx    context.Context // of the run
	source files.Source
	root   string // the store's name, which begins every path
	list   func() ([]string, error)
	blocks *blocks
}

func newListed(ctx context.Context, s files.Source) *listed {
	t := &listed{ctx: ctx, source: s, root: cmp.Or(s.String(), ".")}
	t.list = sync.OnceValues(t.names)
	room := func() (most, ahead int) { return mostBlocks, 0 }
	if far, ok := s.(interface{ Blocks() (most, ahead int) }); ok {
		room = far.Blocks
	}
	t.blocks = newBlocks(room)
	return t
}

// names returns the names of all files, ascending.
func (t *listed) names() ([]string, error) {
	names, err := t.source.List(t.ctx)
	if err != nil {
		return nil, Named(t.root, err)
	}
	names = slices.Clone(names)
	slices.Sort(names)
	for _, name := range names {
		if !fs.ValidPath(name) {
			return nil, usage.SourceErrorf("%s: lists %q, want names as in a/b", t.root, name)
		}
	}
	return slices.Compact(names), nil
}

func (t *listed) Join(folder, name string) string {
	if name = path.Clean(name); name == "." {
		return folder
	}
	return folder + "/" + name
}

func (t *listed) Split(path string) (folder, name string) {
	i := strings.LastIndexByte(path, '/')
	return path[:i], path[i+1:]
}

func (t *listed) OnDisk() bool { return false }

// name returns the store's name for a path, "." for the store itself.
func (t *listed) name(path string) string {
	name, _ := strings.CutPrefix(strings.TrimPrefix(path, t.root), "/")
	return cmp.Or(name, ".")
}

// Stat opens a file to learn its size.
func (t *listed) Stat(path string) (fs.FileInfo, error) {
	folder, file, err := t.find(path)
	switch {
	case err != nil:
		return nil, err
	case folder:
		return info{name: t.base(path), folder: true}, nil
	case !file:
		return nil, &fs.PathError{Op: "find", Path: path, Err: fs.ErrNotExist}
	}
	f, err := t.Open(path)
	if err != nil {
		return nil, err
	}
	return f.Info, f.Close()
}

func (t *listed) base(path string) string {
	_, name := t.Split("/" + path)
	return name
}

// find reports whether the list has a folder or a file at the path.
func (t *listed) find(path string) (folder, file bool, err error) {
	names, err := t.list()
	name := t.name(path)
	if err != nil || name == "." {
		return name == ".", false, err
	}
	_, file = slices.BinarySearch(names, name)
	i, _ := slices.BinarySearch(names, name+"/")
	return i < len(names) && strings.HasPrefix(names[i], name+"/"), file, nil
}

// ReadDir lists the files and folders of a folder.
func (t *listed) ReadDir(path string) (entries []fs.DirEntry, err error) {
	names, err := t.list()
	if err != nil {
		return nil, err
	}
	prefix := t.name(path) + "/"
	if prefix == "./" {
		prefix = ""
	}
	seen := map[string]bool{}
	for _, name := range names {
		rest, ok := strings.CutPrefix(name, prefix)
		if !ok {
			continue
		}
		name, _, folder := strings.Cut(rest, "/")
		if !seen[name] {
			seen[name] = true
			entries = append(entries, fs.FileInfoToDirEntry(info{name: name, folder: folder}))
		}
	}
	return entries, nil
}

// Open opens a file.
func (t *listed) Open(path string) (*File, error) {
	if _, file, err := t.find(path); err != nil || !file {
		return nil, cmp.Or(err, error(&fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}))
	}
	if err := t.ctx.Err(); err != nil {
		return nil, err
	}
	f, err := t.source.Open(t.ctx, t.name(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if f.Size() < 0 {
		return nil, usage.SourceErrorf("%s: has a size of %d bytes, which no file has", path, f.Size())
	}
	one := &File{ReaderAt: watched{f, watch.Of(t.ctx)}, Info: infoOf(t.base(path), f), close: func() error { return nil }}
	if c, ok := f.(io.Closer); ok {
		one.close = c.Close
	}
	one.Sections = &inBlocks{t.blocks, path, one.ReaderAt, f.Size(), stated(f)}
	return one, nil
}

// Share says that what is read of a source is read several times, at about the same time.
func Share(of Tree) {
	if t, ok := of.(*listed); ok {
		t.blocks.mu.Lock()
		defer t.blocks.mu.Unlock()
		t.blocks.shared = true
	}
}

// stated is the sha256 that a store states of a file, "" for none.
func stated(f files.File) string {
	if of, ok := f.(interface{ SHA256() string }); ok {
		return of.SHA256()
	}
	return ""
}

// Unchanged opens the file again to compare its version, if it has one; otherwise it
// reports true, unless what was read is not what the store states.
func (t *listed) Unchanged(path string, was fs.FileInfo) (bool, error) {
	old, ok := was.(info)
	if !ok {
		return true, nil
	}
	if err := t.blocks.asStated(path, old.size, old.stated); err != nil || !old.versioned {
		return err == nil, err
	}
	f, err := t.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return Same(was, f.Info), f.Close()
}

// info is what is known about a file or folder.
type info struct {
	name      string
	folder    bool
	size      int64
	versioned bool
	version   string
	stated    string // its sha256, "" where nobody states it
}

func infoOf(name string, f files.File) info {
	one := info{name: name, size: f.Size(), stated: stated(f)}
	if v, ok := f.(interface{ Version() string }); ok {
		one.versioned, one.version = true, v.Version()
	}
	return one
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) ModTime() time.Time { return time.Time{} }
func (i info) IsDir() bool        { return i.folder }
func (i info) Sys() any           { return nil }
func (i info) Mode() fs.FileMode {
	if i.folder {
		return fs.ModeDir
	}
	return 0
}
