package stage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	err := os.MkdirAll(filepath.Dir(path), 0o777)
	if err == nil {
		err = os.WriteFile(path, []byte(text), 0o666)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// tree is every file below a folder with its text; folders end in a slash.
func tree(t *testing.T, dir string) string {
	t.Helper()
	var all []string
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || name == "." {
			return err
		}
		if d.IsDir() {
			all = append(all, name+"/")
			return nil
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		all = append(all, name+"="+string(text))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}

func wantTree(t *testing.T, when, dir, want string) {
	t.Helper()
	if got := tree(t, dir); got != want {
		t.Errorf("%s: %s, want %s", when, got, want)
	}
}

// filled is a stage with everything written but nothing committed.
func filled(t *testing.T, dest string, folder bool, names ...string) *Stage {
	t.Helper()
	o := Output{Dest: dest, Folder: folder, Force: true, Contents: Contents{Files: names, Stems: map[string]string{"": "m"}}}
	if !folder {
		for _, name := range names[1:] {
			o.Beside = append(o.Beside, Beside{Name: name, Replace: true})
		}
	}
	return fill(t, o, names...)
}

func fill(t *testing.T, o Output, names ...string) *Stage {
	t.Helper()
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Create(names[0], 0)
	if err == nil {
		_, err = f.WriteAt([]byte("new"), 0)
	}
	for _, name := range names[1:] {
		if err == nil {
			err = s.WriteFile(name, []byte("new"))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	scratch(t, s)
	return s
}

// scratch uses files that must not stay, one of which is closed.
func scratch(t *testing.T, s *Stage) {
	t.Helper()
	for i := range 2 {
		f, err := s.Scratch()
		if err == nil {
			_, err = f.WriteAt([]byte("scratch"), 5)
		}
		if err == nil && i == 0 {
			err = errors.Join(f.Close(), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestNamesThatLeadOut: a name of a store's that leads out of the output, or is a device here,
// is refused, and nothing is written.
func TestNamesThatLeadOut(t *testing.T) {
	names := []string{"../x", "a/../../x", "/x", ""}
	if runtime.GOOS == "windows" {
		names = append(names, `..\x`, `C:x`, `a\..\..\x`, "con", "a:b")
	}
	dir := t.TempDir()
	s, err := Open(Output{Dest: filepath.Join(dir, "out"), Folder: true})
	if err != nil {
		t.Fatal(err)
	}
	k, err := OpenKept(Output{Dest: filepath.Join(dir, "kept"), Folder: true}, true)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		_, created := s.Create(name, 1)
		_, drafted := k.Draft(name)
		for _, err := range []error{created, s.WriteFile(name, []byte("x")), drafted} {
			if !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "is no name of a file") {
				t.Errorf("%q: %v", name, err)
			}
		}
	}
	if err := errors.Join(s.Abort(), k.Abort()); err != nil {
		t.Error(err)
	}
	wantTree(t, "after names that lead out", dir, ".kept.parts/ .kept.parts/.tensorpress/")
}

// visible is what stands under names that are not hidden.
func visible(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") {
			names = append(names, e.Name())
		}
	}
	return names
}

// TestCommit: nothing is to be seen before, and all of it, and nothing else,
// after.
func TestCommit(t *testing.T) {
	tests := []struct {
		name   string
		folder bool
		files  []string
		before map[string]string
		want   string
	}{
		{"folder", true, []string{"m.safetensors", "sub/config.json"}, nil, "out/ out/m.safetensors=new out/sub/ out/sub/config.json=new"},
		{"folder in place of an old one", true, []string{"m.safetensors"}, map[string]string{"out/m-00001-of-00002.safetensors": "old"}, "out/ out/m.safetensors=new"},
		{"file", false, []string{"out"}, map[string]string{"other": "x"}, "other=x out=new"},
		{"file in place of an old one", false, []string{"out"}, map[string]string{"out": "old"}, "out=new"},
		{"file and one beside", false, []string{"out", "beside"}, map[string]string{"out": "old", "beside": "old"}, "beside=new out=new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for name, text := range tt.before {
				write(t, filepath.Join(dir, name), text)
			}
			before := visible(t, dir)
			s := filled(t, filepath.Join(dir, "out"), tt.folder, tt.files...)
			if got := visible(t, dir); !slices.Equal(got, before) {
				t.Errorf("before Commit there are %v", got)
			}
			if s.Free() == 0 {
				t.Error("no space is free")
			}
			if err := s.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantTree(t, "after Commit", dir, tt.want)
			if err := s.Abort(); err != nil {
				t.Errorf("Abort after Commit: %v", err)
			}
			wantTree(t, "after Abort", dir, tt.want)
		})
	}
}

func TestAbort(t *testing.T) {
	for _, folder := range []bool{true, false} {
		dir := t.TempDir()
		dest := "out"
		if folder {
			write(t, filepath.Join(dir, "out", "config.json"), "old")
		} else {
			write(t, filepath.Join(dir, "out"), "old")
		}
		want := tree(t, dir)
		s := filled(t, filepath.Join(dir, dest), folder, "out", "beside")
		if err := errors.Join(s.Abort(), s.Abort()); err != nil {
			t.Error(err)
		}
		wantTree(t, "after Abort", dir, want)
	}
}

// TestAbortSaysWhatStays: what nobody is told of fills the disk.
func TestAbortSaysWhatStays(t *testing.T) {
	defer func(old func(string) error) { system.removeAll = old }(system.removeAll)
	for _, failures := range []int{1, 2} {
		s := filled(t, filepath.Join(t.TempDir(), "out"), true, "a")
		tmp, remove := s.Path(""), system.removeAll
		left := failures
		system.removeAll = func(path string) error {
			if left--; left >= 0 {
				return errors.New("too many open files")
			}
			return os.RemoveAll(path)
		}
		err := s.Abort()
		if (failures == 2) != (err != nil && strings.Contains(err.Error(), tmp+" is left behind: delete it (too many")) {
			t.Errorf("%d failures: %v", failures, err)
		}
		system.removeAll = remove
	}
}

// TestOpenFails: a destination in a folder that is not there, or that may not be
// written to, is an error that names that folder and nothing of ours, and makes no
// folder.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "file"), "text")
	for _, missing := range []string{"missing/out", "missing/er/out"} {
		_, err := Open(Output{Dest: filepath.Join(dir, filepath.FromSlash(missing)), Folder: true})
		if err == nil || errors.Is(err, usage.Err) || strings.Contains(err.Error(), unfinished) || !strings.Contains(err.Error(), filepath.Dir(filepath.FromSlash(missing))) {
			t.Errorf("%s: %v", missing, err)
		}
	}
	wantTree(t, "after Open", dir, "file=text")
}

// TestParents: folders that are made for an output stay with it, and go with it.
func TestParents(t *testing.T) {
	dir := t.TempDir()
	for _, whole := range []bool{false, true} {
		o := Output{Dest: filepath.Join(dir, "a", "b", "out"), Folder: true, Parents: true}
		s := fill(t, o, "m")
		want := ""
		if whole {
			want = "a/ a/b/ a/b/out/ a/b/out/m=new"
			if err := s.Commit(t.Context()); err != nil {
				t.Error(err)
			}
		}
		if err := s.Abort(); err != nil {
			t.Error(err)
		}
		wantTree(t, "in the end", dir, want)
	}
}

// TestNames: one name twice would mix two files; a folder copies from where
// the source is.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "source"), "text")
	s := filled(t, filepath.Join(dir, "out"), true, "a")
	defer s.Abort()
	if _, err := s.Create("a", 0); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second file of that name: %v", err)
	}
	if err := s.CopyFile(t.Context(), "deep/er/copy", filepath.Join(dir, "source")); err != nil {
		t.Error(err)
	}
	if err := s.CopyFile(t.Context(), "none", filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantTree(t, "after Commit", dir, "out/ out/a=new out/deep/ out/deep/er/ out/deep/er/copy=text source=text")
}
