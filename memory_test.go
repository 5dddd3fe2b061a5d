//go:build linux || darwin

package tensorpress_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/tensorpress/tensorpress"
	"github.com/tensorpress/tensorpress/files"
	"github.com/tensorpress/tensorpress/internal/fixture"
	"github.com/tensorpress/tensorpress/report"
	"github.com/tensorpress/tensorpress/safetensors"
)

// TestPeakMemory: a machine of 8 GB must take a tensor of any size. The
// process that is measured is this test, run once more for one conversion.
func TestPeakMemory(t *testing.T) {
	if source := os.Getenv("TENSORPRESS_TEST_SOURCE"); source != "" {
		dtype := os.Getenv("TENSORPRESS_TEST_DTYPE")
		o := tensorpress.Options{Layer: tensorpress.Settings{Dtype: dtype}, Memory: 64 << 20, Preset: "none"}
		if rank, err := strconv.Atoi(os.Getenv("TENSORPRESS_TEST_RANK")); err == nil {
			o.Layer.SVDRank = &rank
		}
		if _, err := tensorpress.Quantize(t.Context(), files.Dir(source), files.Dir(filepath.Join(t.TempDir(), "out.safetensors")), o); err != nil {
			t.Fatal(err)
		}
		tellPeak(t)
		return
	}
	if testing.Short() {
		t.Skip("writes 512 MiB")
	}
	const limit = 128 << 20
	shapes := map[string][]int{"square": {8192, 16384}, "wide": {2, 1 << 26}}
	for name, shape := range shapes {
		source := fixture.Written(t, []safetensors.Tensor{{Name: "w.weight", Dtype: safetensors.BF16, Shape: shape}})
		for _, dtype := range []string{"int8_tensorwise", "float8_e4m3fn", "nvfp4", "mxfp8", "convrot_w4a4", "awq_w4a16", "int8", "uint3"} {
			t.Run(name+"/"+dtype, func(t *testing.T) {
				if peak := peakOf(t, source, dtype); peak > limit {
					t.Errorf("peak memory is %s, want at most %s", report.Size(peak), report.Size(limit))
				}
			})
		}
	}
	t.Run("low rank", func(t *testing.T) { // a search in memory alone would take 130 MiB
		source := fixture.Written(t, []safetensors.Tensor{{Name: "w.weight", Dtype: safetensors.BF16, Shape: []int{256, 28672}}})
		if peak := peakOf(t, source, "uint4", "TENSORPRESS_TEST_RANK=64"); peak > limit {
			t.Errorf("peak memory is %s, want at most %s", report.Size(peak), report.Size(limit))
		}
	})
}

func peakOf(t *testing.T, source, dtype string, more ...string) int64 {
	t.Helper()
	return peakOfTest(t, "TestPeakMemory", slices.Concat(more, []string{"TENSORPRESS_TEST_SOURCE=" + source, "TENSORPRESS_TEST_DTYPE=" + dtype})...)
}

// peakOfTest is the peak memory of a test that runs once more, with more in its
// environment.
func peakOfTest(t *testing.T, name string, more ...string) int64 {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^"+name+"$", "-test.v")
	cmd.Env = slices.Concat(os.Environ(), more)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if runtime.GOOS != "linux" {
		return cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
	}
	told := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(out)
	if told == nil {
		t.Fatalf("no peak in %s", out)
	}
	peak, err := strconv.ParseInt(string(told[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return peak << 10
}

// tellPeak prints this process's peak memory where the system has that apart: what wait
// says of a process counts what its parent had when it began.
func tellPeak(t *testing.T) {
	if runtime.GOOS != "linux" {
		return
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s", status)
}

// TestManyPeakMemory: several outputs of one source take no more memory than is allowed for
// one, whatever the size of tensors.
func TestManyPeakMemory(t *testing.T) {
	if source := os.Getenv("TENSORPRESS_TEST_MANY"); source != "" {
		var outputs []tensorpress.Output
		for _, dtype := range []string{"mxfp8", "nvfp4", "float8_e4m3fn", "sdnq:uint4"} {
			outputs = append(outputs, tensorpress.Output{
				Dest:    files.Dir(filepath.Join(t.TempDir(), "out.safetensors")),
				Options: tensorpress.Options{Layout: "comfy", Layer: tensorpress.Settings{Dtype: dtype}, Preset: "none"},
			})
		}
		if _, err := tensorpress.QuantizeMany(t.Context(), files.Dir(source), outputs, tensorpress.ManyOptions{Memory: 64 << 20}); err != nil {
			t.Fatal(err)
		}
		tellPeak(t)
		return
	}
	if testing.Short() {
		t.Skip("writes 1 GiB")
	}
	const limit = 128 << 20
	source := fixture.Written(t, []safetensors.Tensor{
		{Name: "a.weight", Dtype: safetensors.BF16, Shape: []int{8192, 16384}}, {Name: "b.weight", Dtype: safetensors.BF16, Shape: []int{16384, 4096}},
	})
	if peak := peakOfTest(t, "TestManyPeakMemory", "TENSORPRESS_TEST_MANY="+source); peak > limit {
		t.Errorf("peak memory is %s, want at most %s", report.Size(peak), report.Size(limit))
	}
}
