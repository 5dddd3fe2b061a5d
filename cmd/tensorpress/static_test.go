package main

import (
	"debug/elf"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// TestStatic: the binary that people download runs on any Linux, whatever C
// library it has or lacks.
func TestStatic(t *testing.T) {
	if testing.Short() {
		t.Skip("it builds the command")
	}
	path := filepath.Join(t.TempDir(), "tensorpress")
	build := exec.Command("go", "build", "-o", path, ".")
	build.Env = append(build.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+runtime.GOARCH)
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	f, err := elf.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP || p.Type == elf.PT_DYNAMIC {
			t.Errorf("it has %v: it needs a dynamic linker", p.Type)
		}
	}
	if libs, err := f.ImportedLibraries(); err == nil && len(libs) > 0 {
		t.Errorf("it needs %v", libs)
	}
}
