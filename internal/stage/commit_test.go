package stage

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/tensorpress/tensorpress/internal/usage"
)

// systems are what operating and file systems offer.
var systems = map[string]func(){
	"all there is": func() {},
	"no exchange":  func() { system.exchange = unsupported },
	"links alone":  func() { system.exchange, system.renameNew = unsupported, unsupported },
	"nothing":      func() { system.exchange, system.renameNew, system.link = unsupported, unsupported, unsupported },
}

func unsupported(string, string) error {
	return &os.LinkError{Op: "rename", Err: errors.ErrUnsupported}
}

// onEverySystem runs a test on each; look is called at each step of a commit.
func onEverySystem(t *testing.T, test func(t *testing.T, look *func(step string))) {
	for name, take := range systems {
		t.Run(name, func(t *testing.T) {
			was := system
			defer func() { system, reached = was, func(string) {} }()
			take()
			look := func(string) {}
			reached = func(step string) { look(step) }
			test(t, &look)
		})
	}
}

// model is an output of two files, of which all is one version's.
func model(t *testing.T, dest string, folder bool) *Stage {
	if folder {
		return filled(t, dest, true, "model.safetensors", "config.json")
	}
	return filled(t, dest, false, filepath.Base(dest), "beside.json")
}

func oldModel(t *testing.T, dest string, folder bool) {
	names := []string{dest, filepath.Join(filepath.Dir(dest), "beside.json")}
	if folder {
		names = []string{filepath.Join(dest, "model.safetensors"), filepath.Join(dest, "config.json")}
	}
	for _, name := range names {
		write(t, name, "old")
	}
}

// version is what is at a destination: "old", "new", "" for nothing, or what is wrong.
func version(dest string, folder bool) string {
	names := []string{dest}
	if folder {
		names = []string{filepath.Join(dest, "model.safetensors"), filepath.Join(dest, "config.json")}
	}
	var found []string
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err == nil {
			found = append(found, string(text))
		}
	}
	for _, one := range found {
		if one != found[0] || len(found) != len(names) {
			return fmt.Sprint("a mixture: ", found)
		}
	}
	return strings.Join(found[:min(len(found), 1)], "")
}

// TestKilled: whenever a run is killed, the destination holds the old output or the
// new one, whole; where a system cannot do that, the next run says where the old one
// is. What is left behind does not stand in its way.
func TestKilled(t *testing.T) {
	for _, folder := range []bool{true, false} {
		onEverySystem(t, func(t *testing.T, look *func(string)) {
			dir := t.TempDir()
			dest := filepath.Join(dir, "out")
			oldModel(t, dest, folder)
			s := model(t, dest, folder)
			killed := map[string]string{}
			*look = func(step string) {
				killed[step] = filepath.Join(t.TempDir(), "then")
				if err := os.CopyFS(killed[step], os.DirFS(dir)); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Commit(t.Context()); err != nil || len(s.Notes()) > 0 {
				t.Fatal(err, s.Notes())
			}
			*look = func(string) {}
			if len(killed) < 2 {
				t.Fatalf("steps %v", killed)
			}
			for step, then := range killed {
				afterKill(t, step, then, folder)
			}
			if got := version(dest, folder); got != "new" {
				t.Errorf("in the end it is %q", got)
			}
			if hidden, _ := filepath.Glob(filepath.Join(dir, ".*")); len(hidden) > 0 {
				t.Errorf("left behind: %q", hidden)
			}
		})
	}
}

func afterKill(t *testing.T, step, dir string, folder bool) {
	t.Helper()
	dest := filepath.Join(dir, "out")
	there := version(dest, folder)
	next := model(t, dest, folder)
	notes := strings.Join(next.Notes(), "\n")
	switch {
	case there == "" && folder && step == "aside":
		if !strings.Contains(notes, ".old is out as it was before a run that was killed: rename it to out") {
			t.Errorf("%s: nothing is there, and the next run says %q", step, notes)
		}
	case there == "" && step == "aside": // a file that cannot have two names
		if !strings.Contains(notes, "rename it to out") {
			t.Errorf("%s: nothing is there, and the next run says %q", step, notes)
		}
	case there != "old" && there != "new":
		t.Errorf("%s: it is %q", step, there)
	case !strings.Contains(notes, "was left behind by a run that was killed, or that could not remove it: delete it"):
		t.Errorf("%s: the next run says %q", step, notes)
	}
	if err := next.Commit(t.Context()); err != nil {
		t.Errorf("%s: the next run: %v", step, err)
	}
	if got := version(dest, folder); got != "new" {
		t.Errorf("%s: the next run makes %q", step, got)
	}
}

// TestLiveRunsAreNoLeftovers: the folder of a run that goes on must not be called one
// to be deleted.
func TestLiveRunsAreNoLeftovers(t *testing.T) {
	dir := t.TempDir()
	first := model(t, filepath.Join(dir, "out"), true)
	second := model(t, filepath.Join(dir, "out"), true)
	if notes := second.Notes(); len(notes) > 0 {
		t.Errorf("%q", notes)
	}
	if err := errors.Join(first.Abort(), second.Abort()); err != nil {
		t.Error(err)
	}
	wantTree(t, "after both", dir, "")
}

// TestAnotherCame: what has come to the destination while a run went on, or has
// changed what is there, stays, whenever that was.
func TestAnotherCame(t *testing.T) {
	other := func(dir string) error {
		return errors.Join(os.RemoveAll(filepath.Join(dir, "out")), os.Mkdir(filepath.Join(dir, "out"), 0o777),
			os.WriteFile(filepath.Join(dir, "out", "model.safetensors"), []byte("other"), 0o666))
	}
	file := func(dir string) error {
		return errors.Join(os.WriteFile(filepath.Join(dir, "x"), []byte("other"), 0o666), os.Rename(filepath.Join(dir, "x"), filepath.Join(dir, "out")))
	}
	stray := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "out", "notes.txt"), []byte("mine"), 0o666)
	}
	written := func(dir string) error {
		return os.WriteFile(filepath.Join(dir, "out"), []byte("written by another"), 0o666)
	}
	tests := []struct {
		name        string
		folder, old bool
		come        func(dir string) error
	}{
		{"a folder where nothing was", true, false, other},
		{"another folder", true, true, other},
		{"a note in the folder", true, true, stray},
		{"a file where nothing was", false, false, file},
		{"another file", false, true, file},
		{"other content of the file", false, true, written},
	}
	for _, tt := range tests {
		for _, when := range []string{"before", "whole"} {
			t.Run(tt.name+" "+when, func(t *testing.T) {
				onEverySystem(t, func(t *testing.T, look *func(string)) {
					if when == "whole" && !tt.folder && tt.old && system.exchange("a", "b") != nil && errors.Is(system.exchange("a", "b"), errors.ErrUnsupported) {
						t.Skip("a file that is replaced in the last moment cannot be told from the one before it")
					}
					dir := t.TempDir()
					if tt.old {
						oldModel(t, filepath.Join(dir, "out"), tt.folder)
					}
					s := model(t, filepath.Join(dir, "out"), tt.folder)
					var want string
					come := func() {
						if err := tt.come(dir); err != nil {
							t.Fatal(err)
						}
						want = visibleTree(t, dir)
					}
					if when == "before" {
						come()
					}
					*look = func(step string) {
						if step == when {
							come()
						}
					}
					if err := s.Commit(t.Context()); !errors.Is(err, usage.Err) {
						t.Errorf("Commit: %v", err)
					}
					if err := s.Abort(); err != nil {
						t.Error(err)
					}
					wantTree(t, "after it", dir, want)
				})
			})
		}
	}
}

// visibleTree is that of what is not hidden.
func visibleTree(t *testing.T, dir string) string {
	var all []string
	for _, one := range strings.Fields(tree(t, dir)) {
		if !strings.HasPrefix(one, ".") {
			all = append(all, one)
		}
	}
	return strings.Join(all, " ")
}

// TestTwoRuns: of two runs to one destination one succeeds, and its output is whole.
func TestTwoRuns(t *testing.T) {
	for _, folder := range []bool{true, false} {
		for _, old := range []bool{true, false} {
			onEverySystem(t, func(t *testing.T, _ *func(string)) {
				for range 5 {
					dir := t.TempDir()
					dest := filepath.Join(dir, "out")
					if old {
						oldModel(t, dest, folder)
					}
					runs := []*Stage{model(t, dest, folder), model(t, dest, folder)}
					errs := make([]error, len(runs))
					var wg sync.WaitGroup
					for i, s := range runs {
						wg.Go(func() { errs[i] = errors.Join(s.Commit(t.Context()), s.Abort()) })
					}
					wg.Wait()
					if got := version(dest, folder); got != "new" {
						t.Fatalf("there is %q: %v", got, errs)
					}
					if !old && (errs[0] == nil) == (errs[1] == nil) {
						t.Fatalf("want one to succeed: %v", errs)
					}
				}
			})
		}
	}
}

// TestClaimPushedAside: where one run has put the other's empty file aside, with which
// that had claimed the place, it must not move it back over the output which the other
// has moved there meanwhile.
func TestClaimPushedAside(t *testing.T) {
	was := system
	defer func() { system = was }()
	systems["nothing"]()
	for _, came := range []bool{false, true} {
		dir := t.TempDir()
		aside, dest := filepath.Join(dir, "aside"), filepath.Join(dir, "out")
		write(t, aside, "")
		claim, err := os.Lstat(aside)
		if err != nil {
			t.Fatal(err)
		}
		want := "out="
		if came {
			want = "out=new"
			write(t, dest, "new")
		}
		if err := back(aside, dest); err != nil {
			t.Error(err)
		}
		wantTree(t, "after it", dir, want)
		if now, err := os.Lstat(dest); err != nil || os.SameFile(claim, now) {
			t.Errorf("the claim was moved over what may have come to be there: %v", err)
		}
	}
}

// TestOldStays: an old output that cannot be removed is no failure of the new one.
func TestOldStays(t *testing.T) {
	for _, folder := range []bool{true, false} {
		onEverySystem(t, func(t *testing.T, _ *func(string)) {
			dir := t.TempDir()
			dest := filepath.Join(dir, "out")
			oldModel(t, dest, folder)
			s := model(t, dest, folder)
			system.removeAll = func(path string) error { return &fs.PathError{Op: "unlink", Path: path, Err: fs.ErrPermission} }
			if err := errors.Join(s.Commit(t.Context()), s.Abort()); err != nil {
				t.Fatal(err)
			}
			if notes := strings.Join(s.Notes(), "\n"); !strings.Contains(notes, "could not be removed whole: delete "+dir) {
				t.Errorf("it says %q", notes)
			}
			if got := version(dest, folder); got != "new" {
				t.Errorf("there is %q", got)
			}
		})
	}
}

// TestBeside: what lies beside another's file stays, unless the output is no use
// without its own; what was the old output's goes with it.
func TestBeside(t *testing.T) {
	tests := []struct {
		name   string
		beside Beside
		came   bool // while the run went on
		err    bool
		want   string
	}{
		{"new", Beside{Name: "b"}, false, false, "b=new out=new"},
		{"replaced", Beside{Name: "b", Replace: true}, true, false, "b=new out=new"},
		{"another's", Beside{Name: "b"}, true, false, "b=other out=new"},
		{"another's, and needed", Beside{Name: "b", Needed: true}, true, true, "b=other out=old"},
		{"gone", Beside{Name: "b", Gone: true}, true, false, "out=new"},
		{"gone already", Beside{Name: "b", Gone: true}, false, false, "out=new"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			onEverySystem(t, func(t *testing.T, _ *func(string)) {
				dir := t.TempDir()
				write(t, filepath.Join(dir, "out"), "old")
				names := []string{"out", "b"}
				if tt.beside.Gone {
					names = names[:1]
				}
				s := fill(t, Output{Dest: filepath.Join(dir, "out"), Force: true, Beside: []Beside{tt.beside}}, names...)
				if tt.came {
					write(t, filepath.Join(dir, "b"), "other")
				}
				err := s.Commit(t.Context())
				if errors.Is(err, usage.Err) != tt.err || err != nil != tt.err {
					t.Errorf("Commit: %v", err)
				}
				if (len(s.Notes()) > 0) != (tt.name == "another's") {
					t.Errorf("notes %q", s.Notes())
				}
				if err := s.Abort(); err != nil {
					t.Error(err)
				}
				wantTree(t, "after it", dir, tt.want)
			})
		})
	}
}

// TestThroughLinks: a link stays one, and what it leads to is what is written.
func TestThroughLinks(t *testing.T) {
	for _, folder := range []bool{true, false} {
		for _, old := range []bool{true, false} {
			dir, disk := t.TempDir(), t.TempDir()
			target := filepath.Join(disk, "real")
			if old {
				oldModel(t, target, folder)
			}
			symlink(t, target, filepath.Join(disk, "second"))
			symlink(t, filepath.Join(disk, "second"), filepath.Join(dir, "out"))
			s := filled(t, filepath.Join(dir, "out"), folder, map[bool][]string{true: {"model.safetensors", "config.json"}, false: {"out", "beside.json"}}[folder]...)
			if entries, _ := os.ReadDir(dir); len(entries) != 1 {
				t.Errorf("beside the link there is %v", entries)
			}
			if err := s.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			info, err := os.Lstat(filepath.Join(dir, "out"))
			if err != nil || info.Mode()&fs.ModeSymlink == 0 || version(target, folder) != "new" {
				t.Errorf("folder %v, old %v: %v, %v, %q", folder, old, info, err, version(target, folder))
			}
		}
	}
	dir := t.TempDir()
	symlink(t, filepath.Join(dir, "no", "where"), filepath.Join(dir, "out"))
	_, err := Open(Output{Dest: filepath.Join(dir, "out"), Folder: true})
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), filepath.Join(dir, "no")+":") {
		t.Errorf("a link to a folder that is not there: %v", err)
	}
}

// TestInterruptedCommit: an interrupt that comes before anything is in place is heard.
func TestInterruptedCommit(t *testing.T) {
	dir := t.TempDir()
	oldModel(t, filepath.Join(dir, "out"), true)
	want := tree(t, dir)
	s := model(t, filepath.Join(dir, "out"), true)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Commit(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Commit: %v", err)
	}
	if err := s.Abort(); err != nil {
		t.Error(err)
	}
	wantTree(t, "after it", dir, want)
}

// TestNamed: an error names the file that a user asked for.
func TestNamed(t *testing.T) {
	dir := t.TempDir()
	for dest, file := range map[string]string{"folder": "config.json", "file.safetensors": "file.safetensors"} {
		o := Output{Dest: filepath.Join(dir, dest), Folder: dest == "folder"}
		s, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Abort()
		_, err = os.Open(s.Path(file))
		want := o.Dest
		if o.Folder {
			want = filepath.Join(o.Dest, file)
		}
		if got := s.Named(err); !errors.Is(got, fs.ErrNotExist) || !strings.Contains(got.Error(), "open "+want+":") {
			t.Errorf("%v", got)
		}
	}
}

// TestManyFiles: an output may have more files than the process may have open.
func TestManyFiles(t *testing.T) {
	dir := t.TempDir()
	s := fill(t, Output{Dest: filepath.Join(dir, "out"), Folder: true}, "first")
	const n = 300
	var wg sync.WaitGroup
	before := descriptors()
	for i := range n {
		f, err := s.Create(fmt.Sprintf("%03d", i), 0)
		if err != nil {
			t.Fatal(err)
		}
		for at := range 3 {
			wg.Go(func() {
				if _, err := f.WriteAt([]byte{byte(i), byte(at)}, int64(2*(2-at))); err != nil {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	if now := descriptors(); now-before > 100 {
		t.Errorf("%d more files are open", now-before)
	}
	if err := s.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		got, err := os.ReadFile(filepath.Join(dir, "out", fmt.Sprintf("%03d", i)))
		if err != nil || string(got) != string([]byte{byte(i), 2, byte(i), 1, byte(i), 0}) {
			t.Fatalf("file %d: %q, %v", i, got, err)
		}
	}
}

// descriptors is how many files are open, 0 where the system does not tell.
func descriptors() int {
	entries, _ := os.ReadDir("/proc/self/fd")
	return len(entries)
}

// TestCopyFile: a copy is of an ordinary file that stays as it is, and can be
// interrupted.
func TestCopyFile(t *testing.T) {
	dir := t.TempDir()
	write(t, filepath.Join(dir, "source"), "text")
	s := fill(t, Output{Dest: filepath.Join(dir, "out"), Folder: true}, "first")
	defer s.Abort()
	if err := s.CopyFile(t.Context(), "a", dir); !errors.Is(err, usage.ErrSource) {
		t.Errorf("a folder: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.CopyFile(ctx, "b", filepath.Join(dir, "source")); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	growing := filepath.Join(dir, "growing")
	write(t, growing, "text")
	info, err := os.Stat(growing)
	if err != nil {
		t.Fatal(err)
	}
	write(t, growing, "more text")
	from, err := os.Open(growing)
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	to, err := s.create("c")
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	if err := copyAll(t.Context(), to, from, info); !errors.Is(err, usage.ErrSource) || !strings.Contains(err.Error(), "changed while it was copied") {
		t.Errorf("one that grows: %v", err)
	}
}
