package main

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/tensorpress/tensorpress/safetensors"
)

// treeSum is the sha256 of all names and bytes below a folder, "" where it is not there.
func treeSum(t *testing.T, folder string) string {
	t.Helper()
	h := sha256.New()
	err := fs.WalkDir(os.DirFS(folder), ".", func(name string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(folder, name))
		fmt.Fprintf(h, "%q %d\n", name, len(text))
		h.Write(text)
		return err
	})
	if os.IsNotExist(err) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%x", h.Sum(nil))
}

// mkfolder writes a model of some layers into a folder.
func mkfolder(t *testing.T, folder string, layers, rows, cols int) {
	t.Helper()
	var tensors []safetensors.Tensor
	for i := range layers {
		tensors = append(tensors, safetensors.Tensor{Name: fmt.Sprintf("l.%d.weight", i), Dtype: safetensors.F32, Shape: []int{rows, cols}})
	}
	header, err := safetensors.NewHeader(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(folder, 0o777); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(folder, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := fillFile(f, header, map[string]string{}); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(folder, "config.json"), []byte(`{"model_type": "bert"}`), 0o666); err != nil {
		t.Fatal(err)
	}
}

// program is this program as a process of its own.
func program(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path)
	cmd.Args = append([]string{"tensorpress"}, args...)
	var printed bytes.Buffer
	cmd.Stdout, cmd.Stderr = &printed, &printed
	return cmd, &printed
}

// TestKilled: wherever a run with --resume is killed, the next goes on, at the end all is as
// one run makes it, and until then nothing is at DEST but an older output.
func TestKilled(t *testing.T) {
	kills := 50
	if testing.Short() {
		kills = 8
	}
	dir := t.TempDir()
	source := filepath.Join(dir, "source")
	mkfolder(t, source, 6, 64, 256)
	how := []string{"--preset", "none", "--dtype", "uint4", "--svd-rank", "4", "--shard-size", "10KB", "--threads", "2", "-q"}
	quantize := func(dest string, more ...string) (*exec.Cmd, *bytes.Buffer) {
		return program(t, append(append([]string{"quantize", source, dest}, how...), more...)...)
	}
	one := filepath.Join(dir, "one")
	if cmd, printed := quantize(one); cmd.Run() != nil {
		t.Fatal(printed)
	}
	want := treeSum(t, one)
	work := filepath.Join(dir, "work")
	if err := os.Mkdir(work, 0o777); err != nil {
		t.Fatal(err)
	}
	dest := filepath.Join(work, "out")
	begun := time.Now()
	if cmd, printed := quantize(dest, "--resume"); cmd.Run() != nil {
		t.Fatal(printed)
	}
	took := time.Since(begun)

	random := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	killed, whole, old := 0, 0, ""
	for tries := 0; killed < kills && tries < 10*kills; tries++ {
		if whole++; whole%2 == 0 { // an older output is replaced every other time
			if err := os.RemoveAll(dest); err != nil {
				t.Fatal(err)
			}
		}
		old = treeSum(t, dest)
		for {
			cmd, printed := quantize(dest, "--resume", "--force")
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			late := time.AfterFunc(time.Duration(random.Int64N(int64(took))), func() { cmd.Process.Kill() })
			err := cmd.Wait()
			late.Stop()
			if err == nil {
				break
			}
			if cmd.ProcessState.ExitCode() >= 0 {
				t.Fatalf("kill %d: %v: %s", killed, err, printed)
			}
			killed++
			if got := treeSum(t, dest); got != old && got != want {
				t.Fatalf("kill %d: at DEST is something", killed)
			}
		}
		if got := treeSum(t, dest); got != want {
			t.Fatalf("after %d kills: other files than those of one run", killed)
		}
		entries, _ := os.ReadDir(work)
		for _, e := range entries { // what a kill left of an older output is for the user to delete
			if e.Name() == filepath.Base(dest) || filepath.Ext(e.Name()) == ".old" || filepath.Ext(e.Name()) == ".partial" {
				continue
			}
			t.Errorf("after %d kills: %s is left", killed, e.Name())
		}
	}
	t.Logf("%d kills, %d outputs, each within %v", killed, whole, took)
	if killed < kills {
		t.Errorf("killed %d times only", killed)
	}
}
