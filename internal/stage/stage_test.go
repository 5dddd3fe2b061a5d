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
	s, err := Open(dest, folder)
	if err != nil {
		t.Fatal(err)
	}
	f, err := s.Create(names[0])
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
		{"folder in place of an old one", true, []string{"m.safetensors"}, map[string]string{"out/old.safetensors": "old"}, "out/ out/m.safetensors=new"},
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
			if err := s.Commit(); err != nil {
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
		write(t, filepath.Join(dir, "out", "old"), "old")
		s := filled(t, filepath.Join(dir, "out"), folder, "out", "beside")
		if err := errors.Join(s.Abort(), s.Abort()); err != nil {
			t.Error(err)
		}
		wantTree(t, "after Abort", dir, "out/ out/old=old")
	}
}

// TestFailedCommit: what was there must still be there, and nothing new.
func TestFailedCommit(t *testing.T) {
	tests := []struct {
		name   string
		folder bool
		files  []string
		before []string
		spoil  func(s *Stage) error
	}{
		{"file that became a folder", false, []string{"out", "beside", "more"}, []string{"out/x", "beside"}, nil},
		{"beside that became a folder", false, []string{"out", "abeside", "beside"}, []string{"out", "abeside", "beside/x"},
			func(s *Stage) error { return os.Remove(filepath.Join(s.tmp, "out")) }},
		{"folder whose new one is gone", true, []string{"m"}, []string{"out/old"}, func(s *Stage) error {
			return errors.Join(s.close(), os.RemoveAll(s.tmp))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			for _, name := range tt.before {
				write(t, filepath.Join(dir, name), "old")
			}
			want := tree(t, dir)
			s := filled(t, filepath.Join(dir, "out"), tt.folder, tt.files...)
			if tt.spoil != nil {
				if err := tt.spoil(s); err != nil {
					s.Abort()
					t.Skip(err) // open files cannot be removed everywhere
				}
			}
			if err := s.Commit(); err == nil {
				t.Error("Commit succeeded")
			}
			if err := s.Abort(); err != nil {
				t.Errorf("Abort: %v", err)
			}
			wantTree(t, "after a failed Commit", dir, want)
		})
	}
}

// TestOpenFails: a destination in a folder that is not there is an error and
// makes no folder.
func TestOpenFails(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "missing", "out"), true); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	wantTree(t, "after Open", dir, "")
}

// TestNames: one name twice would mix two files; a folder copies from where
// the source is.
func TestNames(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "source"), "text")
	s := filled(t, filepath.Join(dir, "out"), true, "a")
	defer s.Abort()
	if _, err := s.Create("a"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second file of that name: %v", err)
	}
	if err := s.CopyFile("deep/er/copy", filepath.Join(dir, "source")); err != nil {
		t.Error(err)
	}
	if err := s.CopyFile("none", filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a copy of nothing: %v", err)
	}
	if err := s.Commit(); err != nil {
		t.Fatal(err)
	}
	wantTree(t, "after Commit", dir, "out/ out/a=new out/deep/ out/deep/er/ out/deep/er/copy=text source=text")
}

// TestCheck: nothing that someone has may be overwritten by mistake.
func TestCheck(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, filepath.FromSlash(name)) }
	for _, name := range []string{"src/model.safetensors", "src/config.json", "model/x.safetensors", "indexed/m.safetensors.index.json",
		"photos/a.jpg", "file.safetensors", "quantization_config.json"} {
		write(t, at(name), "x")
	}
	if err := os.Mkdir(at("empty"), 0o777); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, dest    string
		folder, force bool
		beside        []string
		want          string // "" for none
	}{
		{"a new folder", "new", true, false, nil, ""},
		{"a new file", "new.safetensors", false, false, nil, ""},
		{"a sibling's longer name", "src2", true, false, nil, ""},
		{"a new file beside the source", "src/new.safetensors", false, true, nil, "lies in the source"},
		{"the source's folder", "src", true, true, nil, "lies in the source"},
		{"the source by another way", "model/../src/", true, true, nil, "lies in the source"},
		{"deep in the source", "src/a/b/c", true, true, nil, "lies in the source"},
		{"a folder that holds the source", ".", true, true, nil, "holds the source"},
		{"a folder that is there", "model", true, false, nil, "exists: name another destination, or give --force"},
		{"a folder to replace", "model", true, true, nil, ""},
		{"a folder with an index to replace", "indexed", true, true, nil, ""},
		{"an empty folder", "empty", true, false, nil, "exists"},
		{"an empty folder to replace", "empty", true, true, nil, ""},
		{"a folder of other things", "photos", true, true, nil, "is no model folder"},
		{"a file that is there", "file.safetensors", false, false, nil, "exists"},
		{"a file to replace", "file.safetensors", false, true, nil, ""},
		{"a file for a folder", "file.safetensors", true, true, nil, "exists and is a file"},
		{"a folder for a file", "model", false, true, nil, "exists and is a folder"},
		{"what comes along is there", "new.safetensors", false, false, []string{"quantization_config.json"}, "quantization_config.json exists"},
		{"what comes along is to be replaced", "new.safetensors", false, true, []string{"quantization_config.json"}, ""},
	}
	for _, tt := range tests {
		check(t, tt.name, Check(at(tt.dest), tt.folder, tt.force, []string{at("src")}, tt.beside), tt.want)
	}
	err := Check(at("src/model.safetensors"), false, true, []string{at("src/model.safetensors")}, nil)
	check(t, "the source itself", err, "lies in the source")
	err = Check(at("src"), true, true, []string{at("src/model.safetensors")}, nil)
	check(t, "the folder of a source file", err, "holds the source")
	err = Check(at("src/new.safetensors"), false, false, []string{at("src/model.safetensors")}, nil)
	check(t, "a file beside a source file", err, "")
}

func check(t *testing.T, name string, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("%s: %v", name, err)
	case want != "" && (!errors.Is(err, usage.Err) || !strings.Contains(err.Error(), want)):
		t.Errorf("%s: %v, want a usage error that holds %q", name, err, want)
	}
}

// TestCheckSeesThroughLinks: a destination may be the source under another
// name.
func TestCheckSeesThroughLinks(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	write(t, at("src/model.safetensors"), "x")
	if err := os.Link(at("src/model.safetensors"), at("hard.safetensors")); err != nil {
		t.Skip(err)
	}
	sources := []string{at("src/model.safetensors")}
	check(t, "a hard link", Check(at("hard.safetensors"), false, true, sources, nil), "is the source")
	for to, name := range map[string]string{"src": "folder", "src/model.safetensors": "soft.safetensors"} {
		if err := os.Symlink(at(to), at(name)); err != nil {
			if runtime.GOOS == "windows" {
				t.Skip(err)
			}
			t.Fatal(err)
		}
	}
	check(t, "a link to the source", Check(at("soft.safetensors"), false, true, sources, nil), "lies in the source")
	check(t, "a link to the folder", Check(at("folder"), true, true, sources, nil), "holds the source")
	check(t, "a file below a link", Check(at("folder/model.safetensors"), false, true, sources, nil), "lies in the source")
	check(t, "a new folder below a link", Check(at("folder/new"), true, true, []string{at("src")}, nil), "lies in the source")
	check(t, "a source that is a link", Check(at("src/new"), true, true, []string{at("folder")}, nil), "lies in the source")
}
