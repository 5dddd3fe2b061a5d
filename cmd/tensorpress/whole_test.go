package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// limited runs this program where no file can have more than some blocks, as a full disk
// would let it.
func limited(t *testing.T, blocks string, args ...string) (printed string, ok bool) {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("there are no such limits")
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	as := filepath.Join(t.TempDir(), "tensorpress")
	if err := os.Symlink(self, as); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("sh", append([]string{"-c", "ulimit -f " + blocks + `; exec "$0" "$@"`, as}, args...)...).CombinedOutput()
	return string(out), err == nil
}

// TestReportWhole: a report that cannot be written leaves the older one as it is, and nothing
// beside it.
func TestReportWhole(t *testing.T) {
	t.Chdir(t.TempDir())
	mkfolder(t, "m", 12, 8, 8)
	for _, name := range []string{"r.json", "r.html", "link.json"} {
		if name == "link.json" {
			if err := os.Symlink("r.json", name); err != nil {
				t.Skip(err)
			}
		}
		if cmd, printed := program(t, "plan", "m", "--report", name); cmd.Run() != nil {
			t.Fatal(printed)
		}
		before, err := os.ReadFile(name)
		if err != nil || len(before) < 2048 {
			t.Fatalf("%s: %d bytes, %v", name, len(before), err)
		}
		if printed, ok := limited(t, "1", "plan", "m", "--dtype", "uint4", "--report", name); ok || strings.Count(printed, "tensorpress: error") != 1 {
			t.Errorf("%s: %s", name, printed)
		}
		if after, err := os.ReadFile(name); err != nil || string(after) != string(before) {
			t.Errorf("%s: has %d bytes now, %v", name, len(after), err)
		}
	}
	if info, err := os.Lstat("link.json"); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is none any more: %v", err)
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 4 {
		t.Errorf("left are %v, %v", entries, err)
	}
}

// TestPlacesOfFiles: what a flag names and cannot be written is said in one line before the
// work.
func TestPlacesOfFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	mkfolder(t, "m", 1, 8, 8)
	if printed, ok := limited(t, "0", "quantize", "m", "out", "--metrics", "x.prom"); ok || strings.Count(printed, "\n") != 1 || !strings.Contains(printed, "error: --metrics") {
		t.Errorf("metrics: %s", printed)
	}
	if runtime.GOOS == "linux" { // where nobody can write to /proc
		for _, flag := range []string{"--report=/proc/r.json", "--metrics=/proc/x.prom"} {
			cmd, printed := program(t, "quantize", "m", "out", flag)
			if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != 1 || strings.Count(printed.String(), "\n") != 1 || !strings.Contains(printed.String(), "cannot be written") {
				t.Errorf("%s: %v: %s", flag, err, printed)
			}
		}
	}
	if entries, err := os.ReadDir("."); err != nil || len(entries) != 1 {
		t.Errorf("left are %v, %v", entries, err)
	}
}
